"""Long work that is asked after: imports, exports, images that are stored and restored."""

import os

from .images import register
from .serving import FAR, dry, equal, refused, tagged, until, wait
from .shapes import need


def disk(world, name):
    """A disk of a GiB in the directory that may be imported from; its address."""
    path = os.path.join(world.imports, name)
    with open(path, "wb") as file:
        file.write(b"\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa")
        file.truncate(1 << 30)
    return f"file://{path}"


def imports(world):
    ec2 = world.client(world.account())
    container = {"Format": "RAW", "Url": disk(world, "one.raw")}
    dry(ec2.import_snapshot, DiskContainer=container)
    begun = ec2.import_snapshot(DiskContainer=container, Description="one", TagSpecifications=[tagged("import-snapshot-task", a="b")])
    task = begun["ImportTaskId"]

    def ended():
        detail = ec2.describe_import_snapshot_tasks(ImportTaskIds=[task])["ImportSnapshotTasks"][0]["SnapshotTaskDetail"]
        return detail if detail["Status"] != "active" else None

    detail = until("the snapshot", ended)
    equal(detail["Status"], "completed")
    equal(ec2.describe_snapshots(SnapshotIds=[detail["SnapshotId"]])["Snapshots"][0]["State"], "completed")
    wait(ec2, "snapshot_imported", ImportTaskIds=[task])
    begun = ec2.import_image(DiskContainers=[container], Description="an image", Architecture="x86_64", ClientToken="once")
    task = begun["ImportTaskId"]
    done = until("the image", lambda: next((one for one in ec2.describe_import_image_tasks(ImportTaskIds=[task])["ImportImageTasks"]
                                            if one["Status"] != "active"), None))
    equal(done["Status"], "completed", done)
    equal(ec2.describe_images(ImageIds=[done["ImageId"]])["Images"][0]["State"], "available")
    again = ec2.import_image(DiskContainers=[container], Description="an image", Architecture="x86_64", ClientToken="once")
    equal(again["ImportTaskId"], task)
    refused("IncorrectState", ec2.cancel_import_task, ImportTaskId=task)
    for url in ["file:///etc/passwd", f"file://{world.imports}/../../../../etc/passwd", f"file://{world.imports}/none"]:
        for action, more in [(ec2.import_snapshot, {"DiskContainer": {"Url": url}}), (ec2.import_image, {"DiskContainers": [{"Url": url}]})]:
            try:
                action(**more)
            except ec2.exceptions.ClientError:
                continue
            raise AssertionError(f"{url} was imported")
    bucket = {"UserBucket": {"S3Bucket": "a", "S3Key": "b"}}
    refused("UnsupportedOperation", ec2.import_snapshot, DiskContainer=bucket)


def exports(world):
    account = world.account()
    ec2, far = world.client(account), world.client(account, FAR)
    image = register(ec2, "to-export")
    to = {"S3Bucket": "exports", "S3Prefix": "deep/"}
    task = ec2.export_image(ImageId=image, DiskImageFormat="RAW", S3ExportLocation=to)["ExportImageTaskId"]
    done = until("the export", lambda: next((one for one in ec2.describe_export_image_tasks(ExportImageTaskIds=[task])["ExportImageTasks"]
                                             if one["Status"] != "active"), None))
    equal(done["Status"], "completed", done)
    need(os.path.getsize(os.path.join(world.server.home, "store/exports/deep", f"{task}.raw")) == 1 << 30, "the file")
    key = ec2.create_store_image_task(ImageId=image, Bucket="store")["ObjectKey"]
    wait(ec2, "store_image_task_complete", ImageIds=[image])
    equal([one["StoreTaskState"] for one in ec2.describe_store_image_tasks(ImageIds=[image])["StoreImageTaskResults"]], ["Completed"])
    back = far.create_restore_image_task(Bucket="store", ObjectKey=key, Name="restored")["ImageId"]
    wait(far, "image_available", ImageIds=[back])


CHECKS = [imports, exports]
