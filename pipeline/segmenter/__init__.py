"""Promptable segmentation of single images, independent of video."""
