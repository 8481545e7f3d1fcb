//! Images.

mod attribute;
mod list;
mod make;

use crate::api::call::actions;

pub use list::image_kind;

actions! {
    CopyImageAction => make::copy,
    CreateImageAction => make::create,
    DeregisterImageAction => make::deregister,
    DescribeImageAttributeAction => attribute::describe,
    DescribeImagesAction => list::describe,
    DisableImageAction => attribute::disable,
    DisableImageDeprecationAction => attribute::undeprecate,
    DisableImageDeregistrationProtectionAction => attribute::unprotect,
    EnableImageAction => attribute::enable,
    EnableImageDeprecationAction => attribute::deprecate,
    EnableImageDeregistrationProtectionAction => attribute::protect,
    ModifyImageAttributeAction => attribute::modify,
    RegisterImageAction => make::register,
    ResetImageAttributeAction => attribute::reset,
}
