//! The API for tests, on a catalogue of its own, whose instances need no machines.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use form_urlencoded::Serializer;
use tempfile::TempDir;

use super::auth::{Auth, Mode};
use super::clouds::Clouds;
use super::import_dirs::ImportDirs;
use super::service::{HttpRequest, Service};
use crate::cloud::access_key::AccessKeys;
use crate::cloud::home::Home;
use crate::cloud::{Backend, Scope};

/// How long work may go on, at most.
const MOST: Duration = Duration::from_secs(120);

/// The API, and a directory that it imports files from.
pub struct World {
    dir: TempDir,
    /// The API.
    pub service: Service,
}

impl World {
    /// One that imports.
    pub fn new() -> Self {
        let world = Self::without_imports();
        let dirs = ImportDirs::new(&[world.dir.path().join("in")], &world.home()).unwrap();
        Self { service: world.service.with_import_dirs(dirs), dir: world.dir }
    }

    /// One whose owner has named no directory.
    pub fn without_imports() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        let home = Home::at(&dir.path().join("home")).unwrap();
        let keys = Arc::new(Mutex::new(AccessKeys::open(&home).unwrap()));
        let auth = Auth::new(Mode::Any, Scope::default(), Box::new(|_| Ok(None)));
        let service = Service::new(Clouds::new(home, Backend::Stub), auth, keys);
        Self { dir, service }
    }

    /// Where everything is kept.
    pub fn home(&self) -> Home {
        Home::at(&self.dir.path().join("home")).unwrap()
    }

    /// A path beside the directory that is imported from.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The URL of a raw disk of so many MiB that firmware finds boot code on.
    pub fn disk(&self, name: &str, mib: u64) -> String {
        let path = self.dir.path().join("in").join(name);
        let file = File::create(&path).unwrap();
        file.set_len(mib << 20).unwrap();
        let mut sector = [0; 512];
        sector[0] = 0xeb;
        // A partition of Linux's type at sector 2048.
        sector[446..462].copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 8, 0, 0, 0]);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        file.write_all_at(&sector, 0).unwrap();
        format!("file://{}", path.display())
    }

    /// Asks for an action, and for its parameters.
    pub fn ask(&self, action: &str, parameters: &[(&str, &str)]) -> Answer {
        self.send(action, parameters, Vec::new())
    }

    /// The same as another account, in another region.
    pub fn ask_as(&self, account: &str, region: &str, action: &str, parameters: &[(&str, &str)]) -> Answer {
        let credential = format!("{account}/20260101/{region}/ec2/aws4_request");
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host;x-amz-date, Signature=00");
        let headers =
            vec![("authorization".to_owned(), authorization), ("x-amz-date".to_owned(), "20260101T000000Z".to_owned())];
        self.send(action, parameters, headers)
    }

    fn send(&self, action: &str, parameters: &[(&str, &str)], headers: Vec<(String, String)>) -> Answer {
        let mut form = Serializer::new(String::new());
        form.append_pair("Action", action).append_pair("Version", "2016-11-15").extend_pairs(parameters);
        self.post(form.finish().as_bytes(), headers)
    }

    /// Posts a form.
    pub fn post(&self, form: &[u8], headers: Vec<(String, String)>) -> Answer {
        let request = HttpRequest {
            method: "POST".into(),
            path: "/".into(),
            body: form.to_vec(),
            headers,
            ..HttpRequest::default()
        };
        let (answer, told) = self.service.answer(&request);
        Answer { status: answer.status, xml: String::from_utf8(answer.body).unwrap(), error: told.error }
    }

    /// Waits until all that goes on after its answer is done.
    pub fn wait(&self) {
        assert_eq!(self.service.background().wait(MOST), 0);
    }

    /// A completed snapshot of a disk.
    pub fn snapshot(&self) -> String {
        let url = self.disk("a snapshot's", 4);
        let task = self.ask("ImportSnapshot", &[("DiskContainer.Url", &url)]).one("importTaskId");
        self.wait();
        self.ask("DescribeImportSnapshotTasks", &[("ImportTaskId.1", &task)]).one("snapshotId")
    }

    /// An available image of that snapshot.
    pub fn image(&self, name: &str) -> String {
        let snapshot = self.snapshot();
        let parameters = [
            ("Name", name),
            ("Architecture", "x86_64"),
            ("VirtualizationType", "hvm"),
            ("RootDeviceName", "/dev/xvda"),
            ("BlockDeviceMapping.1.DeviceName", "/dev/xvda"),
            ("BlockDeviceMapping.1.Ebs.SnapshotId", &snapshot),
        ];
        self.ask("RegisterImage", &parameters).one("imageId")
    }
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As 200.
    pub status: u16,
    /// All of it.
    pub xml: String,
    /// EC2's code, where it is an error.
    pub error: Option<String>,
}

impl Answer {
    /// The texts of all elements of a name that have no others in them.
    pub fn all(&self, name: &str) -> Vec<String> {
        let (begin, end) = (format!("<{name}>"), format!("</{name}>"));
        let parts = self.xml.split(&begin).skip(1);
        parts.filter_map(|part| part.split_once(&end)).map(|(text, _)| text.to_owned()).collect()
    }

    /// The only one of them.
    pub fn one(&self, name: &str) -> String {
        let mut all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {}", self.xml);
        all.remove(0)
    }

    /// The code of the error that it is.
    pub fn code(&self) -> String {
        self.error.clone().unwrap_or_else(|| format!("it was done: {}", self.xml))
    }
}
