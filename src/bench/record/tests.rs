use proptest::prelude::*;

use super::super::phase::tests::event;
use super::*;

/// A run that came to its end after `total` milliseconds.
pub fn run(number: u32, mode: Mode, cache: Cache, total: f64) -> Run {
    let mut events = vec![event("first_instruction", total / 100.0)];
    if !mode.is_pv() {
        events.push(event("boot_loader_started", total / 10.0));
        events.push(event("kernel_started", total / 5.0));
    }
    events.extend([event("init_started", total / 2.0), event("until_matched", total)]);
    let memory = Some(5 << 20);
    let outcome = "until-matched".into();
    Run {
        number,
        mode,
        cache,
        warm_up: false,
        outcome,
        failure: None,
        events,
        guest_bytes: memory,
        monitor_bytes: memory,
    }
}

/// A record with runs of some modes; each takes as long as `total` says.
pub fn record(modes: &[Mode], runs: u32, total: impl Fn(Mode, Cache, u32) -> f64) -> Record {
    let mut all = Vec::new();
    for number in 0..runs {
        for cache in Cache::ALL {
            for mode in modes {
                let count = u32::try_from(all.len()).unwrap() + 1;
                all.push(run(count, *mode, cache, total(*mode, cache, number)));
            }
        }
    }
    let file = |path: &str| FileFacts { path: path.into(), bytes: 3 << 30, sha256: Some("0a51".repeat(16)) };
    Record {
        schema: SCHEMA,
        kind: KIND.into(),
        amiboot: "0.1.0".into(),
        started: "2026-11-24T06:00:00Z".into(),
        complete: true,
        host: HostFacts {
            processor: "EPYC <&> \"test\"".into(),
            processors: 2,
            kernel: "6.1.0".into(),
            memory_bytes: Some(8 << 30),
            kvm: "SVM (AMD)".into(),
            is_virtual: true,
        },
        image: file("/images/debian-12.raw"),
        guest_kernel: Some("6.1.0-cloud-amd64".into()),
        firmware: vec![FirmwareFacts { mode: Mode::Hvm, file: file("/fw/bios-256k.bin") }],
        options: Options {
            modes: modes.to_vec(),
            caches: Cache::ALL.to_vec(),
            runs,
            warm_up: 1,
            cold_by: "posix_fadvise".into(),
            commands: vec![CommandFacts { mode: Mode::Pv, words: vec!["run".into()] }],
        },
        runs: all,
    }
}

fn sample() -> Record {
    record(&[Mode::Pv, Mode::Hvm], 3, |mode, _, n| if mode.is_pv() { 1000.0 } else { 1500.0 } + f64::from(n))
}

#[test]
fn what_is_written_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&sample()).unwrap()).unwrap();
    let again = Record::read(&path).unwrap();
    assert_eq!(again, sample());
    assert_eq!(again.groups().len(), 4);
    assert_eq!(again.counting(Mode::Hvm, Cache::Warm).count(), 3);
    let missing = Record::read(&dir.path().join("b.json")).unwrap_err().to_string();
    assert!(missing.contains("b.json") && missing.contains("No such file"), "{missing}");
    std::fs::File::create(&path).unwrap().set_len(FILE_MAX + 1).unwrap();
    assert!(Record::read(&path).unwrap_err().to_string().contains("larger than 32 MiB"));
}

#[test]
fn what_is_wrong_is_named() {
    let change = |pointer: &str, value: Value| {
        let mut json = serde_json::to_value(sample()).unwrap();
        *json.pointer_mut(pointer).unwrap() = value;
        Record::parse(json.to_string().as_bytes()).unwrap_err()
    };
    for (pointer, value, said) in [
        ("/kind", "other".into(), "\"kind\""),
        ("/schema", 9.into(), "schema 9"),
        ("/schema", "one".into(), "schema: "),
        ("/host", Value::Null, "host: "),
        ("/host/kernel", 7.into(), "host: "),
        ("/runs/2", Value::Null, "runs[2]"),
        ("/runs/2/mode", "xen".into(), "runs[2]: unknown variant `xen`"),
        ("/runs/1/events/0/wall_ms", (-1).into(), "runs[1].events[0].wall_ms: -1"),
        ("/runs/1/events/1/cpu_ms", 1e300.into(), "runs[1].events[1].cpu_ms"),
        ("/runs/1/events", vec![serde_json::to_value(event("x", 1.0)).unwrap(); 600].into(), "runs[1].events: 600"),
        ("/runs", vec![Value::Null; RUNS_MAX + 1].into(), "runs: 20001"),
    ] {
        let error = change(pointer, value);
        assert!(error.contains(said), "{pointer}: {error}");
    }
    for text in ["", "[]", "7", "{", "{}", "\u{0}", &"[".repeat(100_000)] {
        assert!(Record::parse(text.as_bytes()).is_err());
    }
    let mut fields = serde_json::to_value(sample()).unwrap();
    fields.as_object_mut().unwrap().remove("options");
    assert!(Record::parse(fields.to_string().as_bytes()).unwrap_err().contains("\"options\" is missing"));
}

#[test]
fn failed_runs_and_warm_ups_do_not_count() {
    let mut record = sample();
    record.runs[0].failure = Some("timed out".into());
    record.runs[4].warm_up = true;
    // Without its end it cannot count, whatever the file says.
    record.runs[8].events.pop();
    assert_eq!(record.counting(Mode::Pv, Cache::Cold).count(), 0);
    assert_eq!(record.failed(Mode::Pv, Cache::Cold).count(), 2);
    assert!(!record.groups().contains(&(Cache::Cold, Mode::Pv)));
}

proptest! {
    /// A file that was damaged is read or refused; nothing else happens.
    #[test]
    fn damaged_files_are_borne(at in 0usize..4000, with in any::<u8>(), cut: bool) {
        let mut bytes = serde_json::to_vec(&sample()).unwrap();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] = with }
        if let Ok(record) = Record::parse(&bytes) {
            for (cache, mode) in record.groups() {
                prop_assert!(record.counting(mode, cache).all(|run| run.ends().is_some()));
            }
        }
    }
}
