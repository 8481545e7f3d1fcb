//! EC2's names for addresses, and for the part of the cloud that a region is in.

use std::net::Ipv4Addr;

/// The region whose names are shorter, because it was the first.
const FIRST_REGION: &str = "us-east-1";

/// The private name of an address, as in `ip-172-31-5-9.eu-west-1.compute.internal`.
pub(super) fn private_name(address: Ipv4Addr, region: &str) -> String {
    let address = dashed(address);
    match region {
        FIRST_REGION => format!("ip-{address}.ec2.internal"),
        _ => format!("ip-{address}.{region}.compute.internal"),
    }
}

/// The public name of an address, as in `ec2-54-1-2-3.eu-west-1.compute.amazonaws.com`.
pub(super) fn public_name(address: Ipv4Addr, region: &str) -> String {
    let (address, domain) = (dashed(address), domain(region));
    match region {
        FIRST_REGION => format!("ec2-{address}.compute-1.{domain}"),
        _ => format!("ec2-{address}.{region}.compute.{domain}"),
    }
}

/// The domain of a region's services.
pub(super) fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// The partition that a region is in.
pub(super) fn partition(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "aws-cn"
    } else if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else {
        "aws"
    }
}

fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_region() {
        let (private, public) = (Ipv4Addr::new(172, 31, 5, 9), Ipv4Addr::new(54, 1, 2, 3));
        for (region, private_is, public_is, domain_is, partition_is) in [
            ("us-east-1", "ip-172-31-5-9.ec2.internal", "ec2-54-1-2-3.compute-1.amazonaws.com", "amazonaws.com", "aws"),
            (
                "eu-west-1",
                "ip-172-31-5-9.eu-west-1.compute.internal",
                "ec2-54-1-2-3.eu-west-1.compute.amazonaws.com",
                "amazonaws.com",
                "aws",
            ),
            (
                "cn-north-1",
                "ip-172-31-5-9.cn-north-1.compute.internal",
                "ec2-54-1-2-3.cn-north-1.compute.amazonaws.com.cn",
                "amazonaws.com.cn",
                "aws-cn",
            ),
            (
                "us-gov-west-1",
                "ip-172-31-5-9.us-gov-west-1.compute.internal",
                "ec2-54-1-2-3.us-gov-west-1.compute.amazonaws.com",
                "amazonaws.com",
                "aws-us-gov",
            ),
        ] {
            assert_eq!(private_name(private, region), private_is);
            assert_eq!(public_name(public, region), public_is);
            assert_eq!((domain(region), partition(region)), (domain_is, partition_is));
        }
    }
}
