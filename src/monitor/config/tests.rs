use super::*;

fn config() -> InstanceConfig {
    let volume = |device: &str, digit: &str, source| VolumeConfig {
        device: device.into(),
        id: format!("vol-{}", digit.repeat(17)),
        read_only: digit == "b",
        ephemeral: None,
        source,
    };
    InstanceConfig {
        version: VERSION,
        id: "i-0123456789abcdef0".into(),
        memory: 512 << 20,
        cpus: 2,
        mode: Mode::Hvm,
        hvm: Hvm {
            firmware: Some(FirmwareName("uefi".into())),
            uefi_vars: Some("/store/vars".into()),
            firmware_log: None,
            disk: Some(Disks::Nvme),
        },
        pv: Pv::default(),
        identity: InstanceIdentity { uuid: Uuid::from_u128(0xec2 << 116), instance_type: "t3.micro".into() },
        volumes: vec![
            volume("/dev/sda1", "a", VolumeSource::Layers { stems: vec!["/l/1".into(), "/l/2".into()], size: 1 << 30 }),
            volume(
                "/dev/sdf",
                "b",
                VolumeSource::File { path: "/d".into(), format: Some(Format::Qcow2), throw_away: None },
            ),
            volume("/dev/sdg", "c", VolumeSource::Blank { directory: "/var/tmp".into(), size: 1 << 30 }),
        ],
        network: None,
        agent: true,
        seed_disk: false,
        console_log: ConsoleLogConfig { path: "/i/console.log".into(), keep: 1 << 20 },
        control_socket: "/i/control.sock".into(),
        alive_lock: "/i/alive".into(),
        exit_file: "/i/exit.json".into(),
        on_exit: vec!["/bin/true".into()],
        grace_ms: 1000,
        restart: true,
    }
}

fn read(text: &[u8]) -> Result<InstanceConfig, InstanceConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    InstanceConfig::read(file.path())
}

#[test]
fn it_is_read_as_it_was_written() {
    let config = config();
    let json = serde_json::to_vec_pretty(&config).unwrap();
    assert_eq!(read(&json).unwrap(), config);
    assert_eq!(config.volumes[0].serial(), format!("vol{}", "a".repeat(17)));
    assert_eq!(config.smbios().instance_id, config.id);
}

#[test]
fn what_is_left_out_is_as_it_mostly_is() {
    let mut value = serde_json::to_value(config()).unwrap();
    for field in ["mode", "hvm", "pv", "on_exit", "grace_ms", "restart"] {
        value.as_object_mut().unwrap().remove(field);
    }
    let config = read(value.to_string().as_bytes()).unwrap();
    assert_eq!((config.mode, config.restart, config.grace()), (Mode::Auto, true, Duration::from_secs(30)));
    value.as_object_mut().unwrap().remove("version");
    assert!(read(value.to_string().as_bytes()).unwrap_err().to_string().contains("version"));
}

#[test]
fn what_cannot_be_names_its_field() {
    type Change = fn(&mut InstanceConfig);
    let changes: [(Change, &str); 15] = [
        (|c| c.seed_disk = true, "seed_disk: the instance is told nothing"),
        (|c| c.memory = 1, "memory"),
        (|c| c.memory += 1, "memory: "),
        (|c| c.cpus = 0, "processor"),
        (|c| c.volumes.clear(), "volumes: there is no root"),
        (|c| c.console_log.keep = 1, "console_log.keep"),
        (|c| c.exit_file = "exit.json".into(), "exit_file: give an absolute"),
        (|c| c.hvm.uefi_vars = Some("vars".into()), "hvm.uefi_vars"),
        (|c| c.volumes[1].device = "/dev/hda".into(), "volumes[1].device"),
        (|c| c.volumes[1].device = c.volumes[0].device.clone(), "volumes[1]: another"),
        (|c| c.volumes[2].id = c.volumes[0].id.clone(), "volumes[2]: another"),
        (|c| c.volumes[0].id = "vol-XYZ".into(), "volumes[0].id"),
        (|c| c.volumes[0].source = VolumeSource::Layers { stems: vec![], size: 1 }, "no layer"),
        (|c| c.volumes[0].source = VolumeSource::Blank { directory: "tmp".into(), size: 1 }, "volumes[0].source"),
        (
            |c| {
                c.volumes[0].source =
                    VolumeSource::File { path: "/d".into(), format: None, throw_away: Some("t".into()) };
            },
            "volumes[0].source",
        ),
    ];
    for (change, words) in changes {
        let mut config = config();
        change(&mut config);
        let error = read(&serde_json::to_vec(&config).unwrap()).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn a_damaged_one_is_an_error_or_another_one() {
    let good = serde_json::to_vec(&config()).unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |limit: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % limit as u64).unwrap()
    };
    for _ in 0..2000 {
        let mut bytes = good.clone();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(3) {
                0 => bytes[at] = u8::try_from(next(256)).unwrap(),
                1 => bytes.truncate(at + 1),
                _ => drop(bytes.remove(at)),
            }
            if bytes.is_empty() {
                break;
            }
        }
        // Whatever it is, what is taken has been checked.
        if let Ok(config) = serde_json::from_slice::<InstanceConfig>(&bytes)
            && config.check().is_ok()
        {
            assert!(config.control_socket.is_absolute() && !config.volumes.is_empty());
        }
    }
}
