//! `amiboot serve`: EC2's API.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::scope::{ScopeArgs, told};
use super::{CliError, Usage, output};
use crate::api::auth::{Auth, Mode};
use crate::api::clouds::Clouds;
use crate::api::import_dirs::ImportDirs;
use crate::api::public;
use crate::api::server::{self, Tls};
use crate::api::service::Service;
use crate::cloud::access_key::AccessKeys;
use crate::cloud::home::Home;
use crate::cloud::{Backend, time};

/// How long work that was answered already may go on when the server is to end. What is not done then is undone by the
/// next command.
const LAST_WORK: Duration = Duration::from_secs(60);

/// Whether signatures are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AuthArg {
    /// Requests must be signed by a key of `amiboot access-key`
    Verify,
    /// Any key will do, and none
    Any,
}

/// What instances are launched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BackendArg {
    /// Machines of this host's KVM
    Machines,
    /// Nothing: all rules are kept, and no guest is started
    Stub,
}

impl From<BackendArg> for Backend {
    fn from(arg: BackendArg) -> Self {
        match arg {
            BackendArg::Machines => Self::Machines,
            BackendArg::Stub => Self::Stub,
        }
    }
}

/// Serves EC2's API, so that the aws CLI, SDKs, Terraform and Packer drive instances here
#[derive(Args)]
#[command(after_help = "\
With `export AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_DEFAULT_REGION=us-east-1 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test` \
other people's tools speak to it. An access key that is an account's 12 digits stands for that account; `--owner` is whose \
all other unknown keys are.")]
pub struct ServeArgs {
    /// Address and port; another address than this host's own loopback needs `--auth verify`
    #[arg(long, value_name = "ADDRESS:PORT", env = "AMIBOOT_LISTEN", default_value = "127.0.0.1:4566")]
    listen: SocketAddr,

    /// Whether signatures are verified; by default where there are access keys
    #[arg(long, value_enum)]
    auth: Option<AuthArg>,

    /// Speaks TLS, with this certificate and its chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,

    /// What instances are launched on
    #[arg(long, value_enum, default_value = "machines")]
    backend: BackendArg,

    /// Gives running instances no addresses on this host's loopback, at which the TCP ports answer that their security
    /// groups open
    #[arg(long)]
    no_public_addresses: bool,

    /// Directory whose disk files may be imported, by URLs as in file:///home/me/images/disk.vmdk; may be repeated. Whoever
    /// reaches the API can read what is in it
    #[arg(long, value_name = "DIRECTORY")]
    import_from: Vec<PathBuf>,

    /// No line for each request
    #[arg(long)]
    quiet: bool,

    #[command(flatten)]
    scope: ScopeArgs,
}

impl ServeArgs {
    /// Serves until it is told to end.
    ///
    /// # Errors
    /// What is wrong with the options, the catalogue or the address.
    pub fn run(self) -> Result<(), CliError> {
        let scope = self.scope.scope()?;
        // What is wrong with the catalogue is told now.
        self.scope.open()?;
        let home = Home::of_person().map_err(told)?;
        let keys = Arc::new(Mutex::new(AccessKeys::open(&home).map_err(told)?));
        let mode = self.mode(&keys)?;
        let is_loopback = match self.listen.ip() {
            IpAddr::V4(address) => address.is_loopback(),
            IpAddr::V6(address) => address.is_loopback(),
        };
        if mode == Mode::Any && !is_loopback {
            let message = format!(
                "{} can be reached by others: it needs --auth verify, and keys (amiboot access-key create)",
                self.listen
            );
            return Err(Usage(message).into());
        }
        let tls = match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::new(certificate, key).map_err(|error| error.to_string())?),
            _ => None,
        };
        let known = keys.clone();
        let lookup = move |id: &str| known.lock().unwrap_or_else(PoisonError::into_inner).find(id);
        let auth = Auth::new(mode, scope, Box::new(lookup));
        let import_dirs = ImportDirs::new(&self.import_from, &home).map_err(|error| error.to_string())?;
        let clouds = Clouds::new(home, self.backend.into());
        let mut service = Service::new(clouds, auth, keys).with_import_dirs(import_dirs);
        if !self.no_public_addresses {
            service = service.with_public_addresses();
        }
        let service = Arc::new(service);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start threads: {error}"))?;
        runtime.block_on(self.serve(service.clone(), tls, mode))?;
        let left = service.background().wait(LAST_WORK);
        if left > 0 {
            output::note(&format!("{left} pieces of work were not done; the next command undoes them"));
        }
        Ok(())
    }

    fn mode(&self, keys: &Mutex<AccessKeys>) -> Result<Mode, CliError> {
        let are_any = || keys.lock().unwrap_or_else(PoisonError::into_inner).are_any().map_err(told);
        match self.auth {
            Some(AuthArg::Any) => Ok(Mode::Any),
            Some(AuthArg::Verify) => Ok(Mode::Verify),
            None => Ok(if are_any()? { Mode::Verify } else { Mode::Any }),
        }
    }

    async fn serve(&self, service: Arc<Service>, tls: Option<Tls>, mode: Mode) -> Result<(), CliError> {
        let cannot = |error: std::io::Error| format!("cannot listen at {}: {error}", self.listen);
        let listening = server::listen(self.listen).await.map_err(cannot)?;
        let address = listening.address().map_err(cannot)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let who = match mode {
            Mode::Verify => "signatures are verified",
            Mode::Any => "signatures are not verified: any access key will do",
        };
        output::note(&format!("EC2's API is at {scheme}://{address}; {who}"));
        let (end, ended) = watch::channel(false);
        let hear = |kind| signal(kind).map_err(|error| format!("cannot hear signals: {error}"));
        let (mut terminate, mut interrupt) = (hear(SignalKind::terminate())?, hear(SignalKind::interrupt())?);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let _ = end.send(true);
        });
        let quiet = self.quiet;
        let log: server::Log = Arc::new(move |line| {
            if !quiet {
                output::note(&format!("{} {line}", time::format(time::now())));
            }
        });
        let public = async {
            if !self.no_public_addresses {
                let scope = self.scope.scope().unwrap_or_default();
                public::keep(service.clouds().clone(), scope, log.clone(), ended.clone()).await;
            }
        };
        tokio::join!(server::serve(service.clone(), listening, tls, log.clone(), ended.clone()), public);
        Ok(())
    }
}
