//! `amiboot image`: what disk images are, and images in the catalogue.

mod change;
mod copy;
mod inspect;
mod list;
mod make;
mod product;
mod register;
mod share;
mod sort;
mod withdraw;

use clap::Subcommand;

use super::CliError;

/// The verbs of `amiboot image`.
#[derive(Subcommand)]
pub enum ImageCommand {
    Inspect(inspect::InspectArgs),
    Import(Box<make::ImportArgs>),
    Create(make::CreateArgs),
    Register(Box<register::RegisterArgs>),
    Copy(copy::CopyArgs),
    Export(make::ExportArgs),
    Ls(Box<list::LsArgs>),
    Show(list::ShowArgs),
    Share(share::ShareArgs),
    Tag(change::TagArgs),
    Describe(change::DescribeArgs),
    Disable(change::DisableArgs),
    Enable(change::EnableArgs),
    Deprecate(change::DeprecateArgs),
    Undeprecate(change::UndeprecateArgs),
    Protect(change::ProtectArgs),
    Deregister(withdraw::DeregisterArgs),
    ProductCode(product::ProductCodeArgs),
    Subscribe(product::SubscribeArgs),
    Unsubscribe(product::UnsubscribeArgs),
    OwnerAlias(product::OwnerAliasArgs),
}

pub(super) fn run(command: &ImageCommand) -> Result<u8, CliError> {
    match command {
        ImageCommand::Inspect(args) => inspect::inspect(args),
        ImageCommand::Import(args) => make::import(args),
        ImageCommand::Create(args) => make::create(args),
        ImageCommand::Register(args) => register::register(args),
        ImageCommand::Copy(args) => copy::copy(args),
        ImageCommand::Export(args) => make::export(args),
        ImageCommand::Ls(args) => list::ls(args),
        ImageCommand::Show(args) => list::show(args),
        ImageCommand::Share(args) => share::share(args),
        ImageCommand::Tag(args) => change::tag(args),
        ImageCommand::Describe(args) => change::describe(args),
        ImageCommand::Disable(args) => change::disable(args),
        ImageCommand::Enable(args) => change::enable(args),
        ImageCommand::Deprecate(args) => change::deprecate(args),
        ImageCommand::Undeprecate(args) => change::undeprecate(args),
        ImageCommand::Protect(args) => change::protect(args),
        ImageCommand::Deregister(args) => withdraw::deregister(args),
        ImageCommand::ProductCode(args) => product::product_code(args),
        ImageCommand::Subscribe(args) => product::subscribe(args),
        ImageCommand::Unsubscribe(args) => product::unsubscribe(args),
        ImageCommand::OwnerAlias(args) => product::owner_alias(args),
    }
}
