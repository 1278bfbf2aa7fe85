"""Import of masks made elsewhere: label maps, mattes, videos, annotations."""
