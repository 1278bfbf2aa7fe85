"""Judge tracking on videos with known masks: J and F beside baselines, HOTA of seeded runs."""
