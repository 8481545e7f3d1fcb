//! Product codes, subscriptions to them, and names of those who sell: `product-code`, `subscribe`, `unsubscribe`,
//! `owner-alias`.

use clap::Args;

use crate::cli::output::note;
use crate::cli::scope::{ScopeArgs, told};
use crate::cli::table::Column;
use crate::cli::{CliError, listing};
use crate::cloud::image::{ProductCode, ProductCodeType};

/// Says which products an image is part of, and makes it part of one, for good
#[derive(Args)]
pub struct ProductCodeArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// The image: its id, the beginning of it, or its name
    image: String,

    /// The code of a product that it becomes part of: launches then want a subscription
    #[arg(long, value_name = "CODE")]
    add: Option<String>,

    /// Whose code it is: marketplace or devpay
    #[arg(long, value_name = "KIND", default_value = "marketplace")]
    kind: ProductCodeType,

    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Accepts the terms of a product: its images can be launched then
#[derive(Args)]
pub struct SubscribeArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// The product's code
    code: String,
}

/// Ends a subscription; instances go on
#[derive(Args)]
pub struct UnsubscribeArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// The product's code
    code: String,
}

/// Makes an account known to all by a name such as amazon
#[derive(Args)]
pub struct OwnerAliasArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// The name
    alias: String,

    /// No longer
    #[arg(long)]
    remove: bool,
}

pub(super) fn product_code(args: &ProductCodeArgs) -> Result<u8, CliError> {
    let mut cloud = args.scope.open()?;
    let id = cloud.resolve_image(&args.image).map_err(told)?;
    let image = match &args.add {
        Some(code) => {
            let code = ProductCode { product_code_id: code.clone(), product_code_type: args.kind };
            cloud.add_product_code(id.as_str(), &code)
        }
        None => cloud.image(id.as_str()),
    };
    let codes = image.map_err(told)?.product_codes;
    let row = |code: &ProductCode| vec![code.product_code_id.clone(), code.product_code_type.to_string()];
    listing::print(
        &codes,
        args.json,
        "the image is part of no product",
        &["PRODUCT CODE", "TYPE"].map(Column::new),
        row,
    )?;
    Ok(0)
}

pub(super) fn subscribe(args: &SubscribeArgs) -> Result<u8, CliError> {
    args.scope.open()?.subscribe(&args.code).map_err(told)?;
    Ok(0)
}

pub(super) fn unsubscribe(args: &UnsubscribeArgs) -> Result<u8, CliError> {
    args.scope.open()?.unsubscribe(&args.code).map_err(told)?;
    Ok(0)
}

pub(super) fn owner_alias(args: &OwnerAliasArgs) -> Result<u8, CliError> {
    let mut cloud = args.scope.open()?;
    let account = cloud.scope().account.clone();
    cloud.set_owner_alias(&args.alias, (!args.remove).then_some(&account)).map_err(told)?;
    if !args.remove {
        note(&format!("account {account} is known as {}", args.alias));
    }
    Ok(0)
}
