use super::*;
use crate::cloud::tag::Tags;

#[test]
fn what_is_not_changed_stays() {
    let options = defaults(Some("v2.0"));
    assert_eq!((options.tokens_required, options.hop_limit, options.endpoint), (true, 2, true));
    assert_eq!(defaults(None), Options::default());
    let change = MetadataChange { hop_limit: Some(64), tags: Some(true), ..MetadataChange::default() };
    let changed = change.applied_to(options).unwrap();
    assert_eq!(changed, Options { hop_limit: 64, tags: true, ..options });
    assert!(MetadataChange::default().is_empty() && !change.is_empty());
    for hop_limit in [0, 65, 255] {
        let change = MetadataChange { hop_limit: Some(hop_limit), ..MetadataChange::default() };
        assert_eq!(change.applied_to(options).unwrap_err().code(), "InvalidParameterValue");
    }
}

#[test]
fn keys_of_tags_are_names_where_the_guest_sees_them() {
    let tags = |key: &str| Tags::from([(key.to_owned(), "v".to_owned())]);
    let seen = Options { tags: true, ..Options::default() };
    for key in ["Name", "a.b:c@d_e=f+g,h-i", "0"] {
        check_tags(&seen, &tags(key)).unwrap();
    }
    for key in ["a b", "a/b", ".", "..", "_index", "ä"] {
        assert_eq!(check_tags(&seen, &tags(key)).unwrap_err().code(), "InvalidParameterValue", "{key}");
        check_tags(&Options::default(), &tags(key)).unwrap();
    }
}
