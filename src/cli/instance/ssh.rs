//! `amiboot instance ssh`: logs in to an instance, by way of its own process.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::output::note;
use crate::cli::scope::{ScopeArgs, told};
use crate::cli::{CliError, Usage, host_keys};
use crate::cloud::{Cloud, Instance};

/// How long a server may take to greet before it is asked once more.
const GREETING: Duration = Duration::from_secs(5);
/// How long to wait before a guest that took no connection is tried again: a server that is being started does not tell.
const AGAIN: Duration = Duration::from_millis(200);
/// What a server's greeting begins with (RFC 4253, section 4.2).
const SSH: &[u8] = b"SSH-";
/// Who logs in where nobody says.
const USER: &str = "ec2-user";

/// Logs in to a running instance with ssh, as soon as its server answers
///
/// The connection goes through the instance's own process: no port of the host is needed, and the network between is none. The
/// user is the one that the image's cloud-init makes, the key the one of the instance's key pair where `amiboot key create`
/// wrote it, and the server's key is compared with what the guest shows on its console.
#[derive(Args)]
pub struct SshArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Log in as this user
    #[arg(long, short, value_name = "USER")]
    login: Option<String>,
    /// Use the private key in this file
    #[arg(long, short, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The guest's port
    #[arg(long, value_name = "PORT", default_value_t = 22)]
    port: u16,
    /// How long to wait for the guest's server
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "5m")]
    timeout: Duration,
    /// The instance: its id, the beginning of it, or its name
    instance: String,
    /// A command to run instead of a shell, or options of ssh after --
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Connects standard input and output to a TCP port of an instance's guest
#[derive(Args)]
pub struct ConnectArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The instance
    instance: String,
    /// The port
    port: u16,
}

/// Runs it; gives ssh's own exit code.
pub(super) fn run(args: &SshArgs) -> Result<u8, CliError> {
    let mut cloud = args.scope.open()?;
    let instance = wait(&mut cloud, args)?;
    let user = match &args.login {
        Some(user) => user.clone(),
        None => login_user(&mut cloud, &instance),
    };
    let known = known_hosts(&mut cloud, &instance)?;
    let identity = args.identity.clone().or_else(|| {
        let file = cloud.key_file(instance.key_name.as_deref()?);
        file.exists().then_some(file)
    });
    let exe = std::env::current_exe()?;
    let mut ssh = Command::new("ssh");
    let id = instance.instance_id.as_str();
    let scope = cloud.scope().clone();
    let connect = format!(
        "ProxyCommand={} instance connect --region {} --owner {} {id} {}",
        quoted(&exe)?,
        scope.region,
        scope.account,
        args.port
    );
    ssh.arg("-o").arg(connect).arg("-o").arg(format!("HostKeyAlias={id}"));
    ssh.arg("-o").arg(format!("UserKnownHostsFile={}", quoted(&known.file)?)).args(["-o", "GlobalKnownHostsFile=none"]);
    ssh.arg("-o").arg(format!("StrictHostKeyChecking={}", if known.is_told { "yes" } else { "accept-new" }));
    if let Some(identity) = &identity {
        ssh.arg("-i").arg(identity).args(["-o", "IdentitiesOnly=yes"]);
    }
    // No log of ssh's own about a host that was added.
    ssh.args(["-o", "LogLevel=ERROR"]).arg(format!("{user}@{id}")).args(&args.command);
    drop(cloud);
    let error = ssh.exec();
    match error.kind() {
        io::ErrorKind::NotFound => Err("ssh is not installed: apt install openssh-client".into()),
        _ => Err(format!("ssh: {error}").into()),
    }
}

/// A path as a word of ssh's configuration, and of the shell that runs the proxy command.
fn quoted(path: &Path) -> Result<String, CliError> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\'', '\\', '$', '`', '%', '\n']));
    text.map(|text| format!("\"{text}\""))
        .ok_or_else(|| Usage(format!("{}: ssh takes no such path", path.display())).into())
}

/// The user whom the image's cloud-init makes.
fn login_user(cloud: &mut Cloud, instance: &Instance) -> String {
    let user = cloud.image(&instance.image_id).ok().and_then(|image| image.login_user);
    user.unwrap_or_else(|| {
        note(&format!("who logs in to this image is not known: trying {USER}; say another with --login"));
        USER.to_owned()
    })
}

/// Waits until the guest's server greets.
fn wait(cloud: &mut Cloud, args: &SshArgs) -> Result<Instance, CliError> {
    let end = Instant::now().checked_add(args.timeout);
    let mut has_told = false;
    loop {
        let (instance, stream) = cloud.dial(&args.instance, args.port).map_err(told)?;
        if is_ssh(stream)? {
            return Ok(instance);
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            let (id, time) = (&instance.instance_id, humantime::format_duration(args.timeout));
            return Err(format!(
                "{id}: no ssh server answered at port {} within {time}; see what the guest does: amiboot instance console \
                 {id} --log",
                args.port
            )
            .into());
        }
        if !has_told {
            note("waiting for the guest's ssh server ...");
            has_told = true;
        }
        thread::sleep(AGAIN);
    }
}

/// Whether a server greets on a connection, before it closes it or says nothing for too long.
fn is_ssh(mut stream: UnixStream) -> Result<bool, CliError> {
    stream.set_read_timeout(Some(GREETING))?;
    let mut greeting = [0; SSH.len()];
    Ok(stream.read_exact(&mut greeting).is_ok() && greeting == SSH)
}

struct Known {
    file: PathBuf,
    /// Whether the guest's keys are in it; else the first that is seen is taken.
    is_told: bool,
}

/// The file of the host's keys, with those that the guest has shown on its console.
fn known_hosts(cloud: &mut Cloud, instance: &Instance) -> Result<Known, CliError> {
    let id = instance.instance_id.as_str();
    let file = cloud.known_hosts_file(&instance.instance_id);
    let (_, output) = cloud.console_output(id, u64::MAX).map_err(told)?;
    let keys = host_keys::of_console(&output);
    if keys.is_empty() {
        return Ok(Known { file, is_told: false });
    }
    let lines: String = keys.iter().map(|key| format!("{id} {key}\n")).collect();
    if fs::read_to_string(&file).is_ok_and(|kept| kept == lines) {
        return Ok(Known { file, is_told: true });
    }
    // Another that does the same writes the same.
    let new = file.with_extension(format!("{}", std::process::id()));
    let mut written = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    written.write_all(lines.as_bytes())?;
    fs::rename(&new, &file)?;
    Ok(Known { file, is_told: true })
}

/// Moves bytes between standard input and output and a port of the guest, until that says no more.
pub(super) fn connect(args: &ConnectArgs) -> Result<u8, CliError> {
    let (_, stream) = args.scope.open()?.dial(&args.instance, args.port).map_err(told)?;
    let mut to_guest = stream.try_clone()?;
    // It ends with the process: nobody waits for a person who types nothing.
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut to_guest);
        let _ = to_guest.shutdown(std::net::Shutdown::Write);
    });
    let mut stream = stream;
    let mut stdout = io::stdout().lock();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Ok(0),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.into()),
        };
        stdout.write_all(buffer.get(..count).unwrap_or_default())?;
        stdout.flush()?;
    }
}
