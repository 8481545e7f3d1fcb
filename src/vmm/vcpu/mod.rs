//! Processors: one thread each, running the guest and answering its exits.

pub mod cpuid;
pub mod kernel_sign;
pub mod registers;

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::{Arc, Once, PoisonError, RwLock};
use std::thread::JoinHandle;

use kvm_bindings::{KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::bus::Bus;
use super::stop::{StopReason, Stopper};
use super::timeline::{Mark, Timeline};

/// Why a processor could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// KVM refused.
    #[error("KVM could not {what}: {cause}")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        cause: io::Error,
    },
    /// A register's value cannot be expressed.
    #[error("the model-specific register {index:#x} cannot be set")]
    Msr {
        /// Its number.
        index: u32,
    },
    /// Too many CPUID leaves.
    #[error("{0} CPUID leaves are more than KVM takes")]
    Cpuid(usize),
    /// No thread.
    #[error("cannot start a processor thread: {0}")]
    Thread(io::Error),
}

impl VcpuError {
    /// Turns an error of KVM into one that says what was asked of it.
    pub fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |e| Self::Kvm { what, cause: io::Error::from_raw_os_error(e.errno()) }
    }
}

/// What every processor of a machine shares.
pub struct Shared {
    /// Port I/O.
    pub ports: Bus,
    /// Memory-mapped I/O.
    pub mmio: Bus,
    /// Who is told that the machine has ended.
    pub stopper: Stopper,
    /// When what happened.
    pub timeline: Arc<Timeline>,
}

/// A processor's thread.
pub struct VcpuThread {
    thread: JoinHandle<()>,
}

impl VcpuThread {
    /// Starts a thread that waits until `gate` can be read and then runs the guest until the machine stops.
    ///
    /// # Errors
    /// [`VcpuError::Thread`].
    pub fn spawn(id: u8, vcpu: VcpuFd, shared: Arc<Shared>, gate: Arc<RwLock<()>>) -> Result<Self, VcpuError> {
        install_kick_handler();
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{id}"))
            .stack_size(128 << 10)
            .spawn(move || {
                let mut vcpu = vcpu;
                let _guard = StopOnPanic(shared.stopper.clone());
                let _kickable = Kickable::new(&mut vcpu);
                drop(gate.read().unwrap_or_else(PoisonError::into_inner));
                if id == 0 {
                    shared.timeline.mark(Mark::FirstInstruction);
                }
                let reason = run(&mut vcpu, &shared);
                if let Some(reason) = reason {
                    shared.stopper.stop(reason);
                }
            })
            .map_err(VcpuError::Thread)?;
        Ok(Self { thread })
    }

    /// Brings the processor out of the guest. It ends if the machine was stopped before.
    pub fn kick(&self) {
        use std::os::unix::thread::JoinHandleExt;
        // SAFETY: the thread has not been joined (this handle owns it), so its id is valid; a handler is installed for
        // the signal. A thread that has just ended answers ESRCH, which is what is wanted anyway.
        unsafe { libc::pthread_kill(self.thread.as_pthread_t(), SIGRTMIN()) };
    }

    /// Waits for its end.
    pub fn join(self) {
        // A panic of the thread has been printed by the panic hook, and the machine is ending.
        let _ = self.thread.join();
    }
}

/// A processor thread that panics takes the machine with it, instead of leaving it to hang.
struct StopOnPanic(Stopper);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(StopReason::Internal("a processor thread of the monitor panicked".into()));
        }
    }
}

thread_local! {
    /// The run structure of this thread's processor, for the signal handler.
    static KVM_RUN: Cell<*mut kvm_run> = const { Cell::new(ptr::null_mut()) };
}

/// Makes this thread's processor leave the guest upon the kick signal, even where the signal arrives between a check
/// for the end and the entry into the guest: `immediate_exit` then sends `KVM_RUN` back at once.
struct Kickable;

impl Kickable {
    fn new(vcpu: &mut VcpuFd) -> Self {
        KVM_RUN.set(ptr::from_mut(vcpu.get_kvm_run()));
        Self
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        KVM_RUN.set(ptr::null_mut());
    }
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let run = KVM_RUN.get();
    if !run.is_null() {
        // SAFETY: not null, so it points to the mapping of the VcpuFd that this very thread owns (Kickable is made after
        // it and dropped before it); the kernel expects this byte to change at any time.
        unsafe { ptr::write_volatile(&raw mut (*run).immediate_exit, 1) };
    }
}

fn install_kick_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It fails only for a signal number that is none.
        let _ = register_signal_handler(SIGRTMIN(), on_kick);
    });
}

/// Runs the guest; gives why the machine should stop, or nothing where it was stopped from elsewhere.
fn run(vcpu: &mut VcpuFd, shared: &Shared) -> Option<StopReason> {
    loop {
        if shared.stopper.is_stopped() {
            return None;
        }
        match vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                let data = ptr::from_mut(data);
                let size = port_access_size(vcpu);
                // SAFETY: the data lie in the mapping that `vcpu` owns, which nothing else of this process reads or
                // writes until the next KVM_RUN; reading the size made no reference to them.
                let data = unsafe { &mut *data };
                data.chunks_mut(size).for_each(|datum| shared.ports.read(u64::from(port), datum));
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                let data = ptr::from_ref(data);
                let size = port_access_size(vcpu);
                // SAFETY: as above.
                let data = unsafe { &*data };
                data.chunks(size).for_each(|datum| shared.ports.write(u64::from(port), datum));
            }
            Ok(VcpuExit::MmioRead(addr, data)) => shared.mmio.read(addr, data),
            Ok(VcpuExit::MmioWrite(addr, data)) => shared.mmio.write(addr, data),
            Ok(VcpuExit::X86Wrmsr(exit)) => {
                let (index, data) = (exit.index, exit.data);
                let done = kernel_sign::write(vcpu, index, data, &shared.timeline);
                vcpu.get_kvm_run().__bindgen_anon_1.msr.error = u8::from(!done);
            }
            Ok(VcpuExit::Shutdown) => return Some(StopReason::TripleFault),
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => return Some(StopReason::PowerOff),
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _)) => return Some(StopReason::Reset),
            Ok(VcpuExit::InternalError) => return Some(StopReason::Internal(describe_internal_error(vcpu))),
            Ok(VcpuExit::FailEntry(reason, _)) => {
                return Some(StopReason::Internal(format!("KVM could not enter the guest (reason {reason:#x})")));
            }
            // HLT only exits where the interrupt controller is not in the kernel; the others ask for nothing.
            Ok(VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen) => {}
            Ok(other) => return Some(StopReason::Internal(format!("KVM gave an exit that is not known: {other:?}"))),
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => vcpu.set_kvm_immediate_exit(0),
            Err(e) => {
                let cause = io::Error::from_raw_os_error(e.errno());
                return Some(StopReason::Internal(format!("KVM_RUN failed: {cause}")));
            }
        }
    }
}

/// The width of one access of a port exit, in bytes: string instructions make several in one exit.
fn port_access_size(vcpu: &mut VcpuFd) -> usize {
    // SAFETY: KVM fills this member of the union for a port exit, which is what was just seen, and all its fields are
    // plain integers.
    let size = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.io.size };
    usize::from(size).max(1)
}

/// `KVM_INTERNAL_ERROR_EMULATION`: an instruction that this KVM cannot interpret.
const SUBERROR_EMULATION: u32 = 1;

fn describe_internal_error(vcpu: &mut VcpuFd) -> String {
    // SAFETY: KVM fills this member of the union for the exit reason that was just seen, and all its fields are plain
    // integers, for which every value is valid.
    let suberror = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror };
    let at = vcpu.get_regs().map(|regs| format!(" at {:#x}", regs.rip)).unwrap_or_default();
    if suberror == SUBERROR_EMULATION {
        format!("this KVM could not interpret the guest's instruction{at}")
    } else {
        format!("KVM reported internal error {suberror}{at}")
    }
}
