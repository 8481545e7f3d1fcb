# shellcheck shell=bash
# What cli.sh does: sourced by it.

ROOT=/dev/sda1

# Where everything is.
is "$(ec2 describe-regions --region-names us-west-2 --query 'Regions[].RegionName')" us-west-2
zone=$(ec2 describe-availability-zones --query 'AvailabilityZones[0].ZoneName')
is "$zone" us-east-1a
vpc=$(ec2 describe-vpcs --filters Name=is-default,Values=true --query 'Vpcs[].VpcId')
is "$(ec2 describe-vpc-attribute --vpc-id "$vpc" --attribute enableDnsSupport --query EnableDnsSupport.Value)" True
subnet=$(ec2 describe-subnets --filters "Name=availability-zone,Values=$zone" --query 'Subnets[].SubnetId')
is "$(ec2 describe-account-attributes --attribute-names default-vpc --query 'AccountAttributes[].AttributeValues[].AttributeValue')" "$vpc"
is "$(ec2 describe-instance-types --instance-types t3.nano --query 'InstanceTypes[].MemoryInfo.SizeInMiB')" 512
is "$(ec2 describe-instance-type-offerings --filters Name=instance-type,Values=t3.nano --query 'InstanceTypeOfferings[].Location')" us-east-1

# Keys.
ec2 create-key-pair --key-name mine --key-type ed25519 --query KeyMaterial >"$DIR/mine.pem"
grep -q 'PRIVATE KEY' "$DIR/mine.pem" || die "no key"
chmod 600 "$DIR/mine.pem"
ssh-keygen -y -f "$DIR/mine.pem" >"$DIR/mine.pub"
ec2 import-key-pair --key-name same --public-key-material "fileb://$DIR/mine.pub" >"$DIR/null"
is "$(ec2 describe-key-pairs --key-names mine --query 'KeyPairs[].KeyFingerprint')" "$(ec2 describe-key-pairs --key-names same --query 'KeyPairs[].KeyFingerprint')"
ec2 delete-key-pair --key-name same >"$DIR/null"
refused InvalidKeyPair.NotFound describe-key-pairs --key-names same

# A group.
group=$(ec2 create-security-group --group-name web --description "for the web" --query GroupId)
rule=$(ec2 authorize-security-group-ingress --group-id "$group" --protocol tcp --port 22 --cidr 10.0.0.0/8 --query 'SecurityGroupRules[].SecurityGroupRuleId')
ec2 authorize-security-group-egress --group-id "$group" --ip-permissions IpProtocol=tcp,FromPort=443,ToPort=443,IpRanges='[{CidrIp=10.0.0.0/8}]' >"$DIR/null"
is "$(ec2 describe-security-group-rules --filters "Name=group-id,Values=$group" --query 'length(SecurityGroupRules)')" 3
ec2 modify-security-group-rules --group-id "$group" --security-group-rules "SecurityGroupRuleId=$rule,SecurityGroupRule={IpProtocol=tcp,FromPort=2222,ToPort=2222,CidrIpv4=10.0.0.0/8}" >"$DIR/null"
ec2 update-security-group-rule-descriptions-ingress --group-id "$group" --security-group-rule-descriptions "SecurityGroupRuleId=$rule,Description=ssh" >"$DIR/null"
is "$(ec2 describe-security-groups --group-ids "$group" --query 'SecurityGroups[].IpPermissions[].[FromPort,IpRanges[0].Description]')" $'2222\tssh'
ec2 update-security-group-rule-descriptions-egress --group-id "$group" --ip-permissions IpProtocol=tcp,FromPort=443,ToPort=443,IpRanges='[{CidrIp=10.0.0.0/8,Description=out}]' >"$DIR/null"
ec2 revoke-security-group-egress --group-id "$group" --ip-permissions IpProtocol=tcp,FromPort=443,ToPort=443,IpRanges='[{CidrIp=10.0.0.0/8}]' >"$DIR/null"

# An image: of a file by amiboot's own command, and of a snapshot.
truncate -s 1M "$DIR/disk.raw"
file_image=$("$AMIBOOT" image import "$DIR/disk.raw" --name of-a-file --architecture x86_64 --virtualization-type hvm --json |
    sed -n 's/.*"image_id": "\(ami-[0-9a-f]*\)".*/\1/p' | head -n 1)
is "$(ec2 describe-images --owners self --query 'Images[].Name')" of-a-file
root=$(ec2 describe-images --image-ids "$file_image" --query 'Images[].BlockDeviceMappings[].Ebs.SnapshotId')
image=$(ec2 register-image --name base --architecture x86_64 --virtualization-type hvm --root-device-name $ROOT --ena-support \
    --block-device-mappings "DeviceName=$ROOT,Ebs={SnapshotId=$root,VolumeSize=2,VolumeType=gp3}" --query ImageId)
image_is "$image" available
is "$(ec2 describe-image-attribute --image-id "$image" --attribute description --query ImageId)" "$image"

# An instance with user data and another disk.
echo 'hello <there>' >"$DIR/user-data"
refused DryRunOperation run-instances --dry-run --image-id "$image" --instance-type t3.nano
instance=$(ec2 run-instances --image-id "$image" --instance-type t3.nano --key-name mine --security-group-ids "$group" --subnet-id "$subnet" \
    --user-data "file://$DIR/user-data" --block-device-mappings 'DeviceName=/dev/sdf,Ebs={VolumeSize=1,DeleteOnTermination=false}' \
    --tag-specifications 'ResourceType=instance,Tags=[{Key=Name,Value=web}]' 'ResourceType=volume,Tags=[{Key=of,Value=web}]' \
    --metadata-options HttpTokens=required --count 1 --query 'Instances[].InstanceId')
# The CLI's own waiting, which asks every 15 s, finds it so at once.
state_of "$instance" running
ec2 wait instance-running --instance-ids "$instance"
ec2 wait instance-status-ok --instance-ids "$instance"
is "$(ec2 describe-instances --filters Name=tag:Name,Values='w*' Name=instance-state-name,Values=running --query 'Reservations[].Instances[].[InstanceId,KeyName,SubnetId]')" "$instance"$'\tmine\t'"$subnet"
is "$(ec2 describe-instance-attribute --instance-id "$instance" --attribute userData --query UserData.Value | base64 -d)" 'hello <there>'
is "$(ec2 describe-instance-status --instance-ids "$instance" --query 'InstanceStatuses[].InstanceStatus.Status')" ok
is "$(ec2 describe-network-interfaces --filters "Name=attachment.instance-id,Values=$instance" --query 'NetworkInterfaces[].Groups[].GroupName')" web
is "$(ec2 describe-instance-credit-specifications --instance-ids "$instance" --query 'InstanceCreditSpecifications[].CpuCredits')" unlimited
ec2 get-console-output --instance-id "$instance" --latest --query InstanceId >"$DIR/null"
is "$(ec2 get-password-data --instance-id "$instance" --query PasswordData)" ''
is "$(ec2 unmonitor-instances --instance-ids "$instance" --query 'InstanceMonitorings[].Monitoring.State')" disabled
refused UnsupportedOperation monitor-instances --instance-ids "$instance"
refused UnsupportedOperation get-console-screenshot --instance-id "$instance"
refused InvalidInstanceID.NotFound get-instance-uefi-data --instance-id "$image"

# Tags.
ec2 create-tags --resources "$instance" "$image" --tags Key=stage,Value=test 'Key=<&>,Value="quoted"'
is "$(ec2 describe-tags --filters Name=key,Values=stage Name=resource-type,Values=image --query 'Tags[].ResourceId')" "$image"
is "$(ec2 describe-instances --filters 'Name=tag-key,Values=<&>' --query 'Reservations[].Instances[].InstanceId')" "$instance"
ec2 delete-tags --resources "$instance" --tags Key=stage
is "$(ec2 describe-tags --filters "Name=resource-id,Values=$instance" --query 'Tags[].Key | sort(@)')" $'<&>\tName'

# Its attributes.
ec2 modify-instance-attribute --instance-id "$instance" --disable-api-termination
refused OperationNotPermitted terminate-instances --instance-ids "$instance"
ec2 modify-instance-attribute --instance-id "$instance" --no-disable-api-termination
ec2 modify-instance-attribute --instance-id "$instance" --instance-initiated-shutdown-behavior terminate
ec2 reset-instance-attribute --instance-id "$instance" --attribute sourceDestCheck
is "$(ec2 modify-instance-metadata-options --instance-id "$instance" --http-put-response-hop-limit 2 --query InstanceMetadataOptions.HttpPutResponseHopLimit)" 2

# Volumes.
volume=$(ec2 create-volume --availability-zone "$zone" --size 1 --volume-type gp3 --query VolumeId)
volume_is "$volume" available
ec2 attach-volume --volume-id "$volume" --instance-id "$instance" --device /dev/sdg >"$DIR/null"
volume_is "$volume" in-use
is "$(ec2 modify-volume --volume-id "$volume" --size 2 --query VolumeModification.TargetSize)" 2
is "$(ec2 describe-volumes-modifications --volume-ids "$volume" --query 'VolumesModifications[].OriginalSize')" 1
is "$(ec2 describe-volume-status --volume-ids "$volume" --query 'VolumeStatuses[].VolumeStatus.Status')" ok
ec2 modify-volume-attribute --volume-id "$volume" --auto-enable-io
is "$(ec2 describe-volume-attribute --volume-id "$volume" --attribute autoEnableIO --query AutoEnableIO.Value)" True
snapshot=$(ec2 create-snapshot --volume-id "$volume" --description nightly --query SnapshotId)
snapshot_is "$snapshot"
ec2 create-snapshots --instance-specification "InstanceId=$instance" --query 'Snapshots[].SnapshotId' | tr '\t' '\n' >"$DIR/snapshots"
is "$(wc -l <"$DIR/snapshots")" 3
while read -r one; do snapshot_is "$one"; done <"$DIR/snapshots"
ec2 detach-volume --volume-id "$volume" >"$DIR/null"
volume_is "$volume" available
refused InvalidSnapshot.InUse delete-snapshot --snapshot-id "$root"
ec2 modify-snapshot-attribute --snapshot-id "$snapshot" --create-volume-permission 'Add=[{UserId=210987654321}]'
is "$(ec2 describe-snapshot-attribute --snapshot-id "$snapshot" --attribute createVolumePermission --query 'CreateVolumePermissions[].UserId')" 210987654321
ec2 reset-snapshot-attribute --snapshot-id "$snapshot" --attribute createVolumePermission
copied=$(ec2 copy-snapshot --region us-west-2 --source-region us-east-1 --source-snapshot-id "$snapshot" --query SnapshotId)
snapshot_is "$copied" --region us-west-2

# Images of the instance, elsewhere, and for others.
cut=$(ec2 create-image --instance-id "$instance" --name cut --no-reboot --query ImageId)
image_is "$cut" available
far=$(ec2 copy-image --region us-west-2 --source-region us-east-1 --source-image-id "$cut" --name far --query ImageId)
image_is "$far" available --region us-west-2
ec2 wait image-available --image-ids "$far" --region us-west-2
ec2 modify-image-attribute --image-id "$cut" --launch-permission 'Add=[{UserId=210987654321}]'
is "$(as 210987654321 describe-images --executable-users self --query 'Images[].ImageId')" "$cut"
ec2 reset-image-attribute --image-id "$cut" --attribute launchPermission
is "$(ec2 enable-image-deprecation --image-id "$cut" --deprecate-at "$(date -u -d '+30 days' +%Y-%m-%dT%H:%M:00Z)" --query Return)" True
ec2 disable-image-deprecation --image-id "$cut" >"$DIR/null"
is "$(ec2 enable-image-deregistration-protection --image-id "$cut" --query Return)" enabled-without-cooldown
refused OperationNotPermitted deregister-image --image-id "$cut"
is "$(ec2 disable-image-deregistration-protection --image-id "$cut" --query Return)" disabled
ec2 disable-image --image-id "$cut" >"$DIR/null"
is "$(ec2 describe-images --owners self --filters Name=name,Values=cut --query 'length(Images)')" 0
ec2 enable-image --image-id "$cut" >"$DIR/null"
aws ssm get-parameters --names /nothing --query InvalidParameters --output text >"$DIR/null"
"$AMIBOOT" parameter put --data-type aws:ec2:image /aws/service/mine/latest "$cut" >"$DIR/null"
is "$(aws ssm get-parameter --name /aws/service/mine/latest --query Parameter.Value --output text)" "$cut"
another=$(ec2 run-instances --image-id resolve:ssm:/aws/service/mine/latest --instance-type t3.nano --query 'Instances[].[InstanceId]')
state_of "$another" running

# The command line sees the same.
"$AMIBOOT" instance ls --json | grep -q "$another" || die "amiboot does not know $another"

# Up and down, and away with it.
is "$(ec2 stop-instances --instance-ids "$instance" --query 'StoppingInstances[].PreviousState.Name')" running
state_of "$instance" stopped
is "$(ec2 start-instances --instance-ids "$instance" --query 'StartingInstances[].PreviousState.Name')" stopped
state_of "$instance" running
ec2 reboot-instances --instance-ids "$instance"
state_of "$instance" running
ec2 deregister-image --image-id "$cut" --delete-associated-snapshots >"$DIR/null"
ec2 deregister-image --image-id "$far" --region us-west-2 >"$DIR/null"
refused InvalidAMIID.Unavailable run-instances --image-id "$cut" --instance-type t3.nano
is "$(ec2 terminate-instances --instance-ids "$instance" "$another" --query 'TerminatingInstances[].PreviousState.Name')" $'running\trunning'
state_of "$instance" terminated
state_of "$another" terminated
ec2 wait instance-terminated --instance-ids "$instance" "$another"
ec2 delete-snapshot --snapshot-id "$snapshot"
ec2 delete-volume --volume-id "$volume"
# Those that were not to go with their instances: the other one's is a copy without tags.
is "$(ec2 describe-volumes --query 'Volumes[].[State,Size,Tags[0].Value]')" $'available\t1\tweb\navailable\t1\tNone'
ec2 revoke-security-group-ingress --group-id "$group" --security-group-rule-ids "$rule" >"$DIR/null"
ec2 delete-security-group --group-id "$group" >"$DIR/null"
refused InvalidGroup.NotFound describe-security-groups --group-ids "$group"
ec2 delete-key-pair --key-name mine >"$DIR/null"
