"""What happens to frames: keyframes, flow, tracks, seeding, and label maps made of them."""
