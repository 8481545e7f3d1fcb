//! Options that all commands about the catalogue have, and how their errors are told.

use clap::Args;

use super::{CliError, Usage};
use crate::cloud::home::Home;
use crate::cloud::{Account, Cloud, CloudError, Scope};

/// Whose resources, and where.
#[derive(Args, Clone, Debug)]
pub struct ScopeArgs {
    /// The region
    #[arg(long, value_name = "REGION", env = "AWS_REGION", default_value = "us-east-1", global = true)]
    region: String,

    /// The account that asks and owns: 12 digits
    #[arg(
        long = "owner",
        value_name = "ACCOUNT",
        env = "AMIBOOT_OWNER",
        default_value = "123456789012",
        global = true
    )]
    account: String,
}

impl ScopeArgs {
    /// The scope that they say.
    ///
    /// # Errors
    /// For an account that is none.
    pub fn scope(&self) -> Result<Scope, CliError> {
        let account: Account = self.account.parse().map_err(told)?;
        Ok(Scope { region: self.region.clone(), account })
    }

    /// The person's catalogue.
    ///
    /// # Errors
    /// What is wrong with the options or the catalogue.
    pub fn open(&self) -> Result<Cloud, CliError> {
        self.open_in(&self.region)
    }

    /// The same in another region.
    ///
    /// # Errors
    /// As [`ScopeArgs::open`].
    pub fn open_in(&self, region: &str) -> Result<Cloud, CliError> {
        let scope = Scope { region: region.to_owned(), ..self.scope()? };
        Cloud::open(Home::of_person().map_err(told)?, scope).map_err(told)
    }
}

/// An error for a person: EC2's code, EC2's words, and the mend. Words of the call that are off end with the code for that.
// It is given to `map_err` everywhere.
#[allow(clippy::needless_pass_by_value)]
pub fn told(error: CloudError) -> CliError {
    let mend = error.mend().map(|mend| format!("; {mend}")).unwrap_or_default();
    let code = error.code();
    let text = if code == "InternalError" { format!("{error}{mend}") } else { format!("{code}: {error}{mend}") };
    match error {
        CloudError::Malformed { .. }
        | CloudError::NameMalformed { .. }
        | CloudError::Mapping(_)
        | CloudError::AttributeItem { .. }
        | CloudError::Parameter { .. } => Usage(text).into(),
        _ => text.into(),
    }
}
