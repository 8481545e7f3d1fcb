use super::*;
use crate::cloud::image::{LaunchPermission, ProductCode, ProductCodeType};

fn product(code: &str) -> ProductCode {
    ProductCode { product_code_id: code.into(), product_code_type: ProductCodeType::Marketplace }
}

#[test]
fn owners_accounts_and_everybody() {
    let world = World::new();
    let (mut mine, mut yours, mut theirs) = (world.cloud(ME), world.cloud(YOU), world.cloud(THEY));
    let image = register(&mut mine, "image");
    let id = image.image_id.as_str();
    let may = |cloud: &mut Cloud| code(cloud.launchable_image(id));
    assert_eq!([may(&mut mine), may(&mut yours)], ["it was done", "AuthFailure"]);
    assert_eq!(code(yours.image(id)), "InvalidAMIID.NotFound");

    let shown = mine.share_image(id, &who(YOU), &[]).unwrap();
    assert_eq!((shown.accounts, shown.is_public, shown.owner_id.as_str()), (vec![YOU.to_owned()], false, ME));
    assert_eq!([may(&mut yours), may(&mut theirs)], ["it was done", "AuthFailure"]);
    assert_eq!(mine.image(id).unwrap().shared_with, 1);
    assert_eq!(yours.image(id).unwrap().shared_with, 0);

    mine.share_image(id, &who("all"), &[]).unwrap();
    mine.share_image(id, &who("all"), &who(YOU)).unwrap();
    assert_eq!([may(&mut yours), may(&mut theirs)], ["it was done", "it was done"]);
    assert!(yours.image(id).unwrap().is_public);
    mine.share_image(id, &who(THEY), &who("all")).unwrap();
    assert_eq!([may(&mut yours), may(&mut theirs)], ["AuthFailure", "it was done"]);
    // What nobody has is taken away without a word, and what somebody has is given.
    mine.share_image(id, &who(THEY), &who(YOU)).unwrap();

    mine.share_image(id, &who("all"), &[]).unwrap();
    let shown = mine.unshare_image(id).unwrap();
    assert_eq!((shown.accounts, shown.is_public), (vec![], false));
    assert_eq!([may(&mut mine), may(&mut yours), may(&mut theirs)], ["it was done", "AuthFailure", "AuthFailure"]);
    let error = yours.launchable_image(id).unwrap_err();
    assert_eq!(error.to_string(), format!("Not authorized for images: [{id}]"));
}

#[test]
fn only_the_owner_changes_who_may() {
    let world = World::new();
    let (mut mine, mut yours, mut theirs) = (world.cloud(ME), world.cloud(YOU), world.cloud(THEY));
    let image = register(&mut mine, "image");
    let id = image.image_id.as_str();
    mine.share_image(id, &who(YOU), &[]).unwrap();
    for (cloud, expected) in [(&mut yours, "UnauthorizedOperation"), (&mut theirs, "InvalidAMIID.NotFound")] {
        for done in [
            code(cloud.share_image(id, &who(THEY), &[])),
            code(cloud.unshare_image(id)),
            code(cloud.launch_permissions(id)),
            code(cloud.deregister_image(id, true)),
            code(cloud.disable_image(id)),
            code(cloud.enable_image(id)),
            code(cloud.deprecate_image(id, None)),
            code(cloud.protect_image(id, true)),
            code(cloud.describe_image(id, "mine")),
            code(cloud.tag_image(id, &Default::default(), &[])),
            code(cloud.add_product_code(id, &product("x"))),
        ] {
            assert_eq!(done, expected);
        }
    }
    assert_eq!(mine.image(id).unwrap(), Image { shared_with: 1, ..image });
}

#[test]
fn who_is_nobody() {
    for (wrong, words) in [("", "userId"), ("12345678901", "userId"), ("self", "userId"), ("ALL", "userId")] {
        let error = wrong.parse::<LaunchPermission>().unwrap_err();
        assert_eq!(error.code(), "InvalidAMIAttributeItemValue", "{wrong}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = LaunchPermission::group("some").unwrap_err();
    assert_eq!(error.code(), "InvalidAMIAttributeItemValue");
    assert!(error.to_string().contains("userGroup"), "{error}");
    assert_eq!(LaunchPermission::group("all").unwrap(), LaunchPermission::Everybody);
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let image = register(&mut cloud, "image");
    assert_eq!(code(cloud.share_image(image.image_id.as_str(), &who(YOU), &who(YOU))), "InvalidParameterCombination");
}

#[test]
fn ids_that_are_none() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let image = register(&mut world.cloud_in("eu-west-1", ME), "elsewhere");
    for (id, expected) in [
        ("ami-00000000000000000", "InvalidAMIID.NotFound"),
        (image.image_id.as_str(), "InvalidAMIID.NotFound"),
        ("ami-xyz", "InvalidAMIID.Malformed"),
        ("i-00000000", "InvalidAMIID.Malformed"),
        ("aki-0000", "InvalidAMIID.Malformed"),
        ("", "InvalidAMIID.Malformed"),
    ] {
        assert_eq!(code(cloud.launchable_image(id)), expected, "{id}");
        assert_eq!(code(cloud.image(id)), expected, "{id}");
    }
}

#[test]
fn paid_images_want_a_subscription() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(ME), world.cloud(YOU));
    let image = register(&mut mine, "paid");
    let id = image.image_id.as_str();
    assert_eq!(code(yours.subscribe("prod1")), "InvalidParameterValue");
    let paid = mine.add_product_code(id, &product("prod1")).unwrap();
    mine.add_product_code(id, &product("prod1")).unwrap();
    let paid = Image { product_codes: vec![product("prod1")], ..paid };
    assert_eq!(mine.image(id).unwrap(), paid);
    mine.launchable_image(id).unwrap();
    // Without launch permission, that is what is said.
    assert_eq!(code(yours.launchable_image(id)), "AuthFailure");
    mine.share_image(id, &who("all"), &[]).unwrap();
    let error = yours.launchable_image(id).unwrap_err();
    assert_eq!(error.code(), "OptInRequired");
    assert!(error.to_string().contains("prod1") && error.mend().unwrap().contains("subscribe prod1"), "{error}");
    yours.subscribe("prod1").unwrap();
    yours.subscribe("prod1").unwrap();
    yours.launchable_image(id).unwrap();
    mine.add_product_code(id, &product("prod2")).unwrap();
    assert_eq!(code(yours.launchable_image(id)), "OptInRequired");
    yours.subscribe("prod2").unwrap();
    yours.launchable_image(id).unwrap();
    yours.unsubscribe("prod1").unwrap();
    assert_eq!(code(yours.launchable_image(id)), "OptInRequired");
    // A disabled image is that for all, first.
    mine.disable_image(id).unwrap();
    assert_eq!(code(mine.launchable_image(id)), "InvalidAMIID.Unavailable");
}

#[test]
fn codes_are_their_sellers() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(ME), world.cloud(YOU));
    let (image, other) = (register(&mut mine, "paid"), register(&mut yours, "other"));
    mine.add_product_code(image.image_id.as_str(), &product("prod1")).unwrap();
    assert_eq!(code(yours.add_product_code(other.image_id.as_str(), &product("prod1"))), "OperationNotPermitted");
    assert_eq!(yours.image(other.image_id.as_str()).unwrap().product_codes, []);
    let long = "x".repeat(65);
    for wrong in ["", "a b", "é", long.as_str()] {
        assert_eq!(
            code(mine.add_product_code(image.image_id.as_str(), &product(wrong))),
            "InvalidParameterValue",
            "{wrong}"
        );
    }
}
