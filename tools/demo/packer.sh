#!/bin/sh
# Packer builds an image from an instance over ssh, and the image boots with what Packer has put into it: amiboot, aws, packer
# and ssh are on the PATH.
#
# Usage: packer.sh DISK

set -eu
mkdir -p "$AMIBOOT_HOME"
amiboot image import "$1" --name debian-12
amiboot serve &
export AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_DEFAULT_REGION=us-east-1 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
cat >web.json <<'END'
{
  "builders": [{
    "type": "amazon-ebs",
    "region": "us-east-1",
    "custom_endpoint_ec2": "http://127.0.0.1:4566",
    "access_key": "test",
    "secret_key": "test",
    "source_ami_filter": { "filters": { "name": "debian-12" }, "owners": ["self"], "most_recent": true },
    "instance_type": "t2.micro",
    "ssh_username": "debian",
    "ssh_timeout": "20m",
    "ami_name": "web-by-packer",
    "tags": { "Built": "by packer" }
  }],
  "provisioners": [{ "type": "shell", "inline": ["echo packer was here | sudo tee /etc/built-by", "sync"] }]
}
END
export CHECKPOINT_DISABLE=1 PACKER_NO_COLOR=1
packer build web.json
ami=$(aws ec2 describe-images --owners self --filters Name=tag:Built,Values='by packer' --query 'Images[0].ImageId' --output text)
echo "packer: built $ami"
left=$(aws ec2 describe-instances --filters Name=instance-state-name,Values=pending,running,stopping,stopped --query 'Reservations[].Instances[].InstanceId' --output text)
echo "packer: left behind: ${left:-nothing}"
amiboot key create login
id=$(aws ec2 run-instances --image-id "$ami" --instance-type t2.micro --key-name login --query 'Instances[0].InstanceId' --output text)
amiboot instance ssh --timeout 20m "$id" 'cat /etc/built-by' || {
    amiboot instance console "$id" --log | tail -n 40
    exit 1
}
aws ec2 terminate-instances --instance-ids "$id"
aws ec2 wait instance-terminated --instance-ids "$id"
kill $!
wait
echo 'packer: done'
