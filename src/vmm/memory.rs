//! Guest memory.

/// Guest memory: regions of anonymous memory, shared by handle. Reached only through its checked accessors.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
