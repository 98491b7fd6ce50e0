"""What tests make their input with: images, DICOM files, manifests, a copy of the checkout."""
