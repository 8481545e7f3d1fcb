// Requests that botocore signed: method, path, query, headers, body.
pub(super) type Vector =
    (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);

pub(super) const VECTORS: [Vector; 4] = [
    (
        "POST",
        "/",
        "",
        &[
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("user-agent", "x   y"),
            ("x-amz-date", "20260131T235900Z"),
            (
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260131/us-west-2/ec2/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=21b2bd0fabcb4e90d0dbc0990399b6546e526b15ae016013e21d3f7c07efa2f5",
            ),
            ("content-length", "53"),
            ("host", "127.0.0.1:4566"),
        ],
        "Action=DescribeImages&Version=2016-11-15&Owner.1=self",
    ),
    (
        "POST",
        "/",
        "",
        &[
            ("x-amz-date", "20260131T235900Z"),
            ("x-amz-security-token", "a/token+of=="),
            (
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260131/us-west-2/ec2/aws4_request, SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=ea9f6d960a5f03bb758f1fc8c0e2289f227e709d6e1ea614807605576ee27b0f",
            ),
            ("content-length", "22"),
            ("host", "127.0.0.1:4566"),
        ],
        "Action=DescribeRegions",
    ),
    (
        "GET",
        "/snapshots/snap-1/blocks",
        "maxResults=100&startingBlockIndex=0&pageToken=a%2Fb%3D%3D",
        &[
            ("x-amz-date", "20260131T235900Z"),
            (
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260131/us-west-2/ebs/aws4_request, SignedHeaders=host;x-amz-date, Signature=0686ddf1ba3e94f8947c971339e86bb4509b2b9c66bee1501b0be78ea952da7e",
            ),
            ("host", "localhost:4566"),
        ],
        "",
    ),
    (
        "GET",
        "/",
        "Action=DescribeTags&Filter.1.Name=a%20b~%2A&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20260131%2Fus-west-2%2Fec2%2Faws4_request&X-Amz-Date=20260131T235900Z&X-Amz-Expires=600&X-Amz-SignedHeaders=host&X-Amz-Signature=5de66ff1f98f8f922aed5cee070060be6d510118f39b5cb92f2ae3095a91076f",
        &[("host", "127.0.0.1:4566")],
        "",
    ),
];
