use proptest::prelude::*;

use super::*;
use crate::api::model::{DescribeImagesRequest, RunInstancesRequest, TagSpecification};

fn read<T: FromParameters>(form: &str) -> Result<T, WireError> {
    let mut fields = Fields::parse(form.as_bytes())?;
    let read = T::from_fields(&mut fields)?;
    fields.end()?;
    Ok(read)
}

#[test]
fn what_the_cli_sends_is_read() {
    let request: DescribeImagesRequest =
        read("Owner.1=self&Filter.1.Name=tag%3AName&Filter.1.Value.2=b+c&Filter.1.Value.1=a&MaxResults=5&DryRun=false")
            .unwrap();
    assert_eq!(request.owners, ["self"]);
    assert_eq!(request.filters[0].name.as_deref(), Some("tag:Name"));
    assert_eq!(request.filters[0].values, ["a", "b c"]);
    assert_eq!((request.max_results, request.dry_run), (Some(5), Some(false)));
}

#[test]
fn lists_are_in_the_order_of_their_numbers_and_may_have_gaps() {
    let request: DescribeImagesRequest = read("ImageId.10=c&ImageId.2=b&ImageId.1=a").unwrap();
    assert_eq!(request.image_ids, ["a", "b", "c"]);
}

#[test]
fn what_is_empty_is_as_good_as_absent() {
    let request: RunInstancesRequest =
        read("SubnetId=&UserData=&IamInstanceProfile.Name=&Placement.AvailabilityZone=&Placement=&BlockDeviceMapping=")
            .unwrap();
    assert_eq!(request.left(""), None);
    assert!(request.block_device_mappings.is_empty());
}

#[test]
fn what_nobody_read_is_named() {
    let mut request: RunInstancesRequest =
        read("ImageId=ami-1&EbsOptimized=false&BlockDeviceMapping.1.DeviceName=a&BlockDeviceMapping.2.Ebs.KmsKeyId=k")
            .unwrap();
    request.image_id = None;
    request.block_device_mappings[0].device_name = None;
    assert_eq!(request.left("").as_deref(), Some("BlockDeviceMapping.2.Ebs.KmsKeyId"));
}

#[test]
fn what_ec2_does_not_have_is_named() {
    let error = read::<TagSpecification>("ResourceType=x&Tag.1.Key=a&Tag.1.Colour.Red=b").unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        ("UnknownParameter", "The parameter Tag.1.Colour.Red is not recognized")
    );
}

#[test]
fn bad_forms_are_refused() {
    for (form, code) in [
        ("ImageId.1=a&ImageId.1=b", "MalformedQueryString"),
        ("ImageId=a&ImageId.1=b", "MalformedQueryString"),
        ("ImageId.1=b&ImageId=a", "MalformedQueryString"),
        ("ImageId.1.x.y=b", "InvalidParameterValue"),
        ("ImageId=a", "InvalidParameterValue"),
        ("ImageId.0=a", "InvalidParameterValue"),
        ("ImageId.01=a", "InvalidParameterValue"),
        ("ImageId.-1=a", "InvalidParameterValue"),
        ("ImageId.2147483648=a", "InvalidParameterValue"),
        ("ImageId.99999999999999999999=a", "InvalidParameterValue"),
        ("MaxResults=ten", "InvalidParameterValue"),
        ("MaxResults.1=1", "InvalidParameterValue"),
        ("DryRun=maybe", "InvalidParameterValue"),
        ("Filter.1=x", "InvalidParameterValue"),
        ("ImageId.1=%00", "MalformedQueryString"),
        ("ImageId.1=%EF%BF%BE", "MalformedQueryString"),
        (".=1", "UnknownParameter"),
        ("=", "UnknownParameter"),
        ("a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q=1", "MalformedQueryString"),
    ] {
        assert_eq!(read::<DescribeImagesRequest>(form).unwrap_err().code(), code, "{form}");
    }
    let many: String = (0..=MAX_PARAMETERS).map(|n| format!("a{n}=&")).collect();
    assert_eq!(read::<DescribeImagesRequest>(&many).unwrap_err().code(), "MalformedQueryString");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(form in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(mut fields) = Fields::parse(&form) {
            let _ = RunInstancesRequest::from_fields(&mut fields).map(|request| request.left(""));
        }
    }

    /// Of parameters that are near to what there is.
    #[test]
    fn near_misses_are_read_or_refused(parts in prop::collection::vec((prop::collection::vec(prop::sample::select(vec![
        "BlockDeviceMapping", "1", "2", "0", "Ebs", "VolumeSize", "Filter", "Value", "Name", "", "NetworkInterface", "UserData",
        "MinCount", "TagSpecification", "Tag", "Key", "x",
    ]), 1..6), "[a-z0-9%=&.+]{0,6}"), 0..12)) {
        let form: Vec<String> = parts.iter().map(|(path, value)| format!("{}={value}", path.join("."))).collect();
        if let Ok(mut fields) = Fields::parse(form.join("&").as_bytes()) {
            let _ = RunInstancesRequest::from_fields(&mut fields).and_then(|request| { request.left(""); fields.end() });
        }
    }
}
