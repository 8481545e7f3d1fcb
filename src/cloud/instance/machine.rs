//! The process of an instance's machine: what it is told, and how it is started.

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use rusqlite::{Connection, Transaction, params};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Backend, Instance, any, set_state, state};
use crate::cloud::error::CloudError;
use crate::cloud::home::Home;
use crate::cloud::id::Id;
use crate::cloud::mapping::GIB;
use crate::cloud::operation::Operation;
use crate::cloud::{Cloud, instance_type, layer, time, volume};
use crate::launch::network::{BackEnd, NetworkConfig};
use crate::monitor::client;
use crate::monitor::config::{
    self, ConsoleLogConfig, Disks, FirmwareName, Hvm, InstanceConfig, InstanceIdentity, Mode, Pv, VolumeConfig,
    VolumeSource,
};
use crate::net::QUEUE_PAIRS_MAX;

/// How much of the console's output is kept, in bytes: EC2 keeps 64 KiB.
const CONSOLE_KEEP: u64 = 256 << 10;
/// How long a guest has to switch itself off, in milliseconds, before it is ended.
const GRACE_MS: u64 = 120_000;

/// The files of an instance.
#[derive(Clone, Debug)]
pub(in crate::cloud) struct Files {
    dir: PathBuf,
}

impl Files {
    pub fn of(home: &Home, id: &str) -> Self {
        Self { dir: home.instance(id) }
    }

    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    pub fn alive(&self) -> PathBuf {
        self.dir.join("alive")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    pub fn exit(&self) -> PathBuf {
        self.dir.join("exit.json")
    }

    pub fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("monitor.log")
    }

    fn variables(&self) -> PathBuf {
        self.dir.join("uefi-vars.fd")
    }
}

impl Cloud {
    /// Starts the machine of a pending instance, and notes that it runs. Where it does not come up, the instance is stopped
    /// again (or terminated, if it was just launched), and says why.
    pub(in crate::cloud) fn start_machine(&mut self, id: &Id, operation: &Operation) -> Result<(), CloudError> {
        let instance = any(self.catalogue.connection(), id.as_str())?;
        let started = match instance.backend {
            Backend::Machines => self.launch_process(id, &Files::of(&self.home, id.as_str())),
            Backend::Stub => Ok(()),
        };
        // A stub that is only to go on was never off.
        let goes_on = instance.backend == Backend::Stub && instance.state == state::RUNNING;
        if let Err(error) = started {
            // What becomes of it is decided when the operation is undone, which keeps the reason.
            let reason = format!("Server.InternalError: {error}");
            self.catalogue.write(|tx| set_state(tx, id, state::PENDING, Some(("Server.InternalError", &reason))))?;
            return Err(error);
        }
        self.catalogue.write(|tx| {
            if !goes_on {
                set_state(tx, id, state::RUNNING, None)?;
            }
            let done = "UPDATE instances SET operation = NULL, launched = coalesce(?2, launched)
                 WHERE id = ?1 AND operation = ?3";
            tx.execute(done, params![id, (!goes_on).then(time::now), operation.id()])?;
            Ok(())
        })
    }

    fn launch_process(&self, id: &Id, files: &Files) -> Result<(), CloudError> {
        let dir = files.dir();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(CloudError::host(dir, "cannot make the instance's directory"))?;
        let exe = std::env::current_exe().map_err(CloudError::host("/proc/self/exe", "cannot tell the program"))?;
        // From the look at the chains until the process has opened them, no layer's name goes away.
        let _hold = self.store().hold_shared()?;
        let config = self.config(id, files, &exe)?;
        write_config(files, &config)?;
        client::start(&files.config(), &exe, Some(&files.log()))
            .map(|_| ())
            .map_err(|error| CloudError::Launch(format!("{id}: {error}")))
    }

    fn config(&self, id: &Id, files: &Files, exe: &std::path::Path) -> Result<InstanceConfig, CloudError> {
        let db = self.catalogue.connection();
        let instance = any(db, id.as_str())?;
        let kind = instance_type::find(&instance.instance_type)?;
        let options = &instance.machine;
        let is_pv = instance.virtualization_type == "paravirtual";
        let (hvm, pv) =
            if is_pv { (Hvm::default(), self.pv(db, &instance)?) } else { (hvm(&instance, files), Pv::default()) };
        Ok(InstanceConfig {
            version: config::VERSION,
            id: id.to_string(),
            memory: options.memory.unwrap_or(kind.memory_mib << 20),
            cpus: options.cpus.unwrap_or(kind.vcpus),
            mode: if is_pv { Mode::Pv } else { Mode::Hvm },
            hvm,
            pv,
            identity: InstanceIdentity { uuid: uuid_of(id), instance_type: instance.instance_type.clone() },
            volumes: self.volume_configs(db, &instance)?,
            network: self.network_config(&instance)?,
            seed_disk: options.seed_disk,
            agent: true,
            console_log: ConsoleLogConfig { path: files.console(), keep: CONSOLE_KEEP },
            control_socket: files.socket(),
            alive_lock: files.alive(),
            exit_file: files.exit(),
            on_exit: on_exit(exe, &self.home, id),
            grace_ms: GRACE_MS,
            restart: true,
        })
    }

    /// The network of an instance's machine; nothing for a machine without a card.
    ///
    /// # Errors
    /// As for what the instance is told of itself.
    pub(in crate::cloud) fn network_config(&self, instance: &Instance) -> Result<Option<NetworkConfig>, CloudError> {
        let asked = instance.machine.net.clone();
        let Some(interface) = instance.network_interface.clone().filter(|_| asked != Some(BackEnd::None)) else {
            return Ok(None);
        };
        let vcpus = instance_type::find(&instance.instance_type)?.vcpus;
        Ok(Some(NetworkConfig {
            outside_is_optional: asked.is_none() && instance.machine.forwards.is_empty(),
            back_end: asked.unwrap_or(BackEnd::User),
            mac: interface.mac_address,
            address: interface.private_ip_address,
            subnet: interface.subnet_cidr,
            vpc: interface.vpc_cidr,
            host_name: interface.private_dns_name.clone(),
            queue_pairs: u16::try_from(vcpus).unwrap_or(QUEUE_PAIRS_MAX).min(QUEUE_PAIRS_MAX),
            forwards: instance.machine.forwards.clone(),
            neighbours: Some(self.home.network(interface.vpc_id.as_str())),
            metadata: self.document(&instance.instance_id)?,
        }))
    }

    /// What a PV guest is booted with, where its image names kernel and ramdisk images.
    fn pv(&self, db: &Connection, instance: &Instance) -> Result<Pv, CloudError> {
        let file = |id: &Option<String>| -> Result<Option<PathBuf>, CloudError> {
            let Some(id) = id else { return Ok(None) };
            let template: Option<String> =
                db.query_row("SELECT template FROM images WHERE id = ?1", [id], |row| row.get(0))?;
            let missing = || CloudError::Damaged(format!("{id}: its file is not in the catalogue"));
            let stem = self.store().stem(&template.ok_or_else(missing)?);
            Ok(Some(stem.with_extension("data")))
        };
        let append = instance.machine.append.clone();
        Ok(Pv { kernel: file(&instance.kernel_id)?, initrd: file(&instance.ramdisk_id)?, append, ..Pv::default() })
    }

    /// The volumes as the guest sees them: the root first, the others by their devices' names.
    fn volume_configs(&self, db: &Connection, instance: &Instance) -> Result<Vec<VolumeConfig>, CloudError> {
        let mut volumes = Vec::new();
        for (attachment, volume) in volume::of_instance(db, &instance.instance_id)? {
            let layer = volume.layer.as_deref().unwrap_or_default();
            volumes.push(VolumeConfig {
                device: attachment.device,
                id: volume.volume_id.to_string(),
                read_only: false,
                ephemeral: None,
                source: self.layers(db, layer, volume.size.saturating_mul(GIB))?,
            });
        }
        for own in own_volumes(db, &instance.instance_id)? {
            volumes.push(VolumeConfig {
                id: own_volume_id(&instance.instance_id, &own.device),
                device: own.device,
                read_only: false,
                ephemeral: own.ephemeral,
                source: self.layers(db, &own.layer, own.size)?,
            });
        }
        volumes.sort_by_key(|volume| (volume.device != instance.root_device_name, volume.device.clone()));
        Ok(volumes)
    }

    /// A volume made of a chain of layers.
    pub(super) fn layers(&self, db: &Connection, top: &str, size: u64) -> Result<VolumeSource, CloudError> {
        Ok(VolumeSource::Layers { stems: self.store().stems(&layer::chain(db, top)?), size })
    }
}

/// A volume that is the instance's own.
pub(super) struct OwnVolume {
    pub device: String,
    pub ephemeral: Option<u8>,
    pub layer: String,
    pub size: u64,
}

/// The volumes that are an instance's own.
pub(super) fn own_volumes(db: &Connection, id: &Id) -> Result<Vec<OwnVolume>, CloudError> {
    let mut query = db.prepare_cached(
        "SELECT device, ephemeral, layer, size FROM instance_store WHERE instance = ?1 AND layer IS NOT NULL ORDER BY device",
    )?;
    let found = query.query_map([id], |row| {
        Ok(OwnVolume {
            device: row.get(0)?,
            ephemeral: row.get(1)?,
            layer: row.get(2)?,
            size: layer::from_sql(row.get(3)?),
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Takes away what an instance has of its own; what it needs is made again when it starts.
pub(super) fn drop_own_volumes(tx: &Transaction<'_>, id: &Id) -> Result<(), CloudError> {
    tx.execute("UPDATE instance_store SET layer = NULL WHERE instance = ?1", [id])?;
    layer::mark_dead(tx)
}

fn hvm(instance: &Instance, files: &Files) -> Hvm {
    let options = &instance.machine;
    let asked = options.firmware.clone().or_else(|| match instance.boot_mode.as_deref() {
        Some("legacy-bios") => Some("bios".into()),
        Some("uefi" | "uefi-preferred") => Some("uefi".into()),
        _ => None,
    });
    let disk = match options.disk.as_deref() {
        Some("virtio") => Disks::Virtio,
        Some(_) => Disks::Nvme,
        // As EC2's machines: NVMe for those of Nitro.
        None if instance_type::find(&instance.instance_type).is_ok_and(|kind| kind.nitro) => Disks::Nvme,
        None => Disks::Virtio,
    };
    let uefi_vars = (asked.as_deref() == Some("uefi")).then(|| files.variables());
    Hvm { firmware: asked.map(FirmwareName), uefi_vars, firmware_log: None, disk: Some(disk) }
}

/// The system's UUID: it begins with `ec2`, and is always the same for one instance.
fn uuid_of(id: &Id) -> Uuid {
    let hash = Sha256::digest(id.as_str());
    let mut bytes: [u8; 16] = hash.first_chunk().copied().unwrap_or_default();
    bytes[0] = 0xec;
    bytes[1] = 0x20 | bytes[1] & 0x0f;
    Uuid::from_bytes(bytes)
}

/// An id, for its serial number, of a volume that the catalogue has no volume for.
fn own_volume_id(instance: &Id, device: &str) -> String {
    let hash = Sha256::digest(format!("{instance} {device}"));
    let digits: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("vol-0{digits}")
}

/// What the process starts at its end: the catalogue is brought to the truth, whoever looks at it next.
fn on_exit(exe: &std::path::Path, home: &Home, id: &Id) -> Vec<String> {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    vec![text(exe), "instance".into(), "settle".into(), "--home".into(), text(home.root()), id.to_string()]
}

fn write_config(files: &Files, config: &InstanceConfig) -> Result<(), CloudError> {
    let path = files.config();
    let failed = CloudError::host(&path, "cannot write it");
    let text = serde_json::to_vec_pretty(config).map_err(|e| CloudError::Damaged(e.to_string()))?;
    // It is written anew at every start: what a cut leaves of it is of no use to anybody.
    File::create(&path).and_then(|mut file| file.write_all(&text)).map_err(failed)
}
