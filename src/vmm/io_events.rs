//! KVM's ioeventfds, as PCI functions want them.

use std::io;

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::pci::IoEvents;

/// What kvm-ioctls says, as an error of the host.
fn host_error(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

impl IoEvents for VmFd {
    fn register(&self, addr: u64, datum: Option<u32>, event: &EventFd) -> io::Result<()> {
        let addr = IoEventAddress::Mmio(addr);
        match datum {
            Some(datum) => self.register_ioevent(event, &addr, datum),
            None => self.register_ioevent(event, &addr, NoDatamatch),
        }
        .map_err(host_error)
    }

    fn unregister(&self, addr: u64, datum: Option<u32>, event: &EventFd) -> io::Result<()> {
        let addr = IoEventAddress::Mmio(addr);
        match datum {
            Some(datum) => self.unregister_ioevent(event, &addr, datum),
            None => self.unregister_ioevent(event, &addr, NoDatamatch),
        }
        .map_err(host_error)
    }
}
