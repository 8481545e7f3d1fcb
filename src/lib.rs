//! amiboot boots Amazon-Machine-Image-style disk images as virtual machines on a Linux KVM host.
//!
//! The rooms, from the top down; each uses only those below it (`docs/architecture.md` draws them):
//!
//! * [`cli`]: the command line;
//! * [`api`]: EC2's API, which other people's tools speak;
//! * [`cloud`]: images, snapshots, volumes and instances, in a catalogue;
//! * [`bench`]: boots measured, many runs of one image in turn;
//! * [`monitor`]: an instance's own process, and how others talk to it;
//! * [`launch`]: a disk becomes a running machine;
//! * [`vmm`]: the machine, which knows nothing of images;
//! * [`imds`]: the instance metadata service, which knows no addresses;
//! * [`net`]: where a network card's frames go to and come from;
//! * [`image`]: what is inside a disk: partitions, file systems, boot entries, kernels;
//! * [`disk`]: formats, layers and locks: what a sequence of sectors is;
//! * [`host`]: what this host can do.

pub mod api;
pub mod bench;
pub mod cli;
pub mod cloud;
pub mod disk;
pub mod host;
pub mod image;
pub mod imds;
pub mod launch;
pub mod monitor;
pub mod net;
pub mod vmm;
