//! A request on its way to the action that it asks for.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use super::auth::Caller;
use super::background::Background;
use super::cache::{Cache, Question};
use super::clouds::Clouds;
use super::error::ApiError;
use super::import_dirs::ImportDirs;
use super::model::Action;
use super::wire::parameters::{Fields, FromParameters, Left};
use super::wire::xml::Xml;
use super::{ec2, public};
use crate::cloud::{Cloud, CloudError, Id, Instance, Kind};

/// What a handler works with.
pub struct Call<'a> {
    /// The catalogue, in the caller's region and for the caller's account.
    pub cloud: &'a mut Cloud,
    /// The request's id.
    pub request_id: &'a str,
    works: &'a Works,
}

impl Call<'_> {
    /// Whether running instances have [public addresses](super::public).
    #[must_use]
    pub fn has_public_addresses(&self) -> bool {
        self.works.has_public
    }

    /// The file of this host that a URL means which is to be imported.
    ///
    /// # Errors
    /// As [`ImportDirs::file`].
    pub fn import_file(&self, url: &str) -> Result<PathBuf, ApiError> {
        self.works.import_dirs.file(url)
    }

    /// The public address of an instance, while it runs.
    #[must_use]
    pub fn public_address(&self, instance: &Instance) -> Option<Ipv4Addr> {
        let interface =
            instance.network_interface.as_ref().filter(|_| self.works.has_public && instance.has_machine())?;
        public::address_of(interface.private_ip_address)
    }

    /// An instance of the caller's, by its whole id.
    ///
    /// # Errors
    /// `InvalidInstanceID.Malformed`, `.NotFound`.
    pub fn instance(&mut self, id: &str) -> Result<Instance, ApiError> {
        Id::parse(Kind::Instance, id)?;
        let found = self.cloud.instances(&[id.to_owned()])?.pop();
        found.ok_or_else(|| CloudError::NotFound { kind: Kind::Instance, id: id.to_owned() }.into())
    }

    /// Begins long work, which goes on after the answer: `work` tells what it has written down, and that is given back as
    /// soon as it does.
    ///
    /// # Errors
    /// What `work` says, where it ends before it has told anything.
    pub fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Cloud, &mut dyn FnMut(T)) -> Result<(), CloudError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (told, news) = mpsc::channel();
        let (clouds, scope) = (self.works.clouds.clone(), self.cloud.scope().clone());
        self.works.background.spawn(move || {
            let done = clouds.open(&scope).and_then(|mut cloud| {
                let told = told.clone();
                // Nobody may be there any more.
                work(&mut cloud, &mut |begun| drop(told.send(Ok(begun))))
            });
            if let Err(error) = done {
                let _ = told.send(Err(ApiError::from(error)));
            }
        })?;
        news.recv().unwrap_or_else(|_| Err(ApiError::new("InternalError", "the work ended without a word")))
    }
}

/// How long a request waits for what else works on its instances or volumes: EC2 takes such requests at once, and does one
/// after the other.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks whether that is done.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Does what may have to wait until something else is done with the same instance or volume.
///
/// # Errors
/// What `work` says; `IncorrectState` where it has to wait for too long.
pub fn patiently<T>(
    cloud: &mut Cloud,
    mut work: impl FnMut(&mut Cloud) -> Result<T, CloudError>,
) -> Result<T, CloudError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match work(cloud) {
            Err(CloudError::Busy { .. }) if Instant::now() < deadline => thread::sleep(LOOK_AGAIN),
            done => return done,
        }
    }
}

/// A request's parameters. Handlers take what they understand, then say that they are [done](Asked::end).
pub struct Asked<R> {
    request: R,
    is_ended: bool,
}

impl<R: Left> Asked<R> {
    /// All that was understood was taken; nothing may be left.
    ///
    /// # Errors
    /// `UnsupportedOperation` for what is left.
    pub fn end(&mut self) -> Result<(), ApiError> {
        self.is_ended = true;
        match self.request.left("") {
            None => Ok(()),
            Some(path) => Err(ApiError::unsupported(format!("The parameter {path} is not supported"))),
        }
    }
}

impl<R> Deref for Asked<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.request
    }
}

impl<R> DerefMut for Asked<R> {
    fn deref_mut(&mut self) -> &mut R {
        &mut self.request
    }
}

/// Reads a request's parameters, does what it asks for, and writes what is in the answer.
pub type Handler = fn(&mut Call<'_>, Fields) -> Result<String, ApiError>;

/// What does an action.
pub type Function<A> = fn(&mut Call<'_>, &mut Asked<<A as Action>::Request>) -> Result<<A as Action>::Answer, ApiError>;

/// The way of an action.
///
/// # Errors
/// What is wrong with the parameters, what the action says, `DryRunOperation`.
pub fn run<A: Action>(call: &mut Call<'_>, mut fields: Fields, handler: Function<A>) -> Result<String, ApiError> {
    let mut request = A::Request::from_fields(&mut fields)?;
    fields.end()?;
    if A::take_dry_run(&mut request) {
        return Err(ApiError::new("DryRunOperation", "Request would have succeeded, but DryRun flag is set."));
    }
    let mut asked = Asked { request, is_ended: false };
    let answer = handler(call, &mut asked)?;
    debug_assert!(asked.is_ended, "{} passes over parameters in silence", A::NAME);
    Ok(Xml::content(&answer))
}

/// Actions of a room: each with its function.
macro_rules! actions {
    ($($action:ident => $handler:path),* $(,)?) => {
        /// The actions of this room.
        pub const ACTIONS: &[(&str, $crate::api::call::Handler)] = &[$((
            <$crate::api::model::$action as $crate::api::model::Action>::NAME,
            |call, fields| $crate::api::call::run::<$crate::api::model::$action>(call, fields, $handler),
        )),*];
    };
}
pub(super) use actions;

static HANDLERS: LazyLock<HashMap<&'static str, Handler>> =
    LazyLock::new(|| ec2::ROOMS.iter().flat_map(|room| room.iter().copied()).collect());

/// Whether there is an action of this name.
#[must_use]
pub fn is_action(name: &str) -> bool {
    HANDLERS.contains_key(name)
}

/// What handlers work with, whoever asks.
pub struct Works {
    /// The catalogues.
    pub clouds: Arc<Clouds>,
    /// Work that goes on after its answer.
    pub background: Background,
    /// Listings that were told.
    pub cache: Cache,
    /// Whether running instances have [public addresses](super::public).
    pub has_public: bool,
    /// Where disk files are imported from.
    pub import_dirs: ImportDirs,
}

impl Works {
    /// Does what a request asks for, whose form is `form` and is in `fields`, but for its action.
    ///
    /// # Errors
    /// As [`run`]; `InvalidAction`.
    pub fn dispatch(
        &self,
        caller: &Caller,
        request_id: &str,
        action: &str,
        form: &[u8],
        fields: Fields,
    ) -> Result<String, ApiError> {
        let Some((name, handler)) = HANDLERS.get_key_value(action) else {
            return Err(ApiError::new(
                "InvalidAction",
                format!("The action {action} is not valid for this web service."),
            ));
        };
        let make =
            || self.clouds.with(&caller.scope, |cloud| handler(&mut Call { cloud, request_id, works: self }, fields));
        let content = match Question::of(&caller.scope, name, form) {
            None => Arc::from(make()?),
            Some(question) => {
                let version = self.clouds.version(&caller.scope)?;
                match self.cache.get(&question, version) {
                    Some(kept) => kept,
                    None => {
                        let made: Arc<str> = make()?.into();
                        self.cache.put(question, version, made.clone());
                        made
                    }
                }
            }
        };
        Ok(Xml::answer(name, ec2::NAMESPACE, request_id, &content))
    }
}
