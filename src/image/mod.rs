//! What is inside a disk: partitions, file systems, boot entries, kernels. Reads through [`crate::disk::Disk`] only.
