"""Transfer of an encoder to detection and segmentation."""
