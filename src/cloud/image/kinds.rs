//! Words that EC2 has for images.

use crate::cloud::words::words;

words! {
    /// What an image is of.
    pub enum ImageType as "image type" {
        /// A machine: `ami-`.
        Machine = "machine",
        /// The kernel of PV images: `aki-`.
        Kernel = "kernel",
        /// The initial ramdisk of PV images: `ari-`.
        Ramdisk = "ramdisk",
    }
}

words! {
    /// Where an image is in its life.
    pub enum ImageState as "image state" {
        /// It is being made.
        Pending = "pending",
        /// Instances can be launched from it.
        Available = "available",
        /// It could not be made.
        Failed = "failed",
        /// Its owner allows no launches for now.
        Disabled = "disabled",
        /// It is no image any more.
        Deregistered = "deregistered",
    }
}

words! {
    /// The processor that an image is for.
    pub enum Architecture as "architecture" {
        /// 32-bit x86.
        I386 = "i386",
        /// 64-bit x86.
        X86_64 = "x86_64",
    }
}

words! {
    /// How a guest is started.
    pub enum VirtualizationType as "virtualization type" {
        /// By firmware and the disk's own boot loader.
        Hvm = "hvm",
        /// By a kernel that the host puts into memory.
        Paravirtual = "paravirtual",
    }
}

words! {
    /// The firmware of an HVM image.
    pub enum BootMode as "boot mode" {
        /// A BIOS.
        LegacyBios = "legacy-bios",
        /// UEFI.
        Uefi = "uefi",
        /// UEFI where the instance type has it, else a BIOS.
        UefiPreferred = "uefi-preferred",
    }
}

words! {
    /// What the root device of an instance is.
    pub enum RootDeviceType as "root device type" {
        /// A volume, made of a snapshot.
        Ebs = "ebs",
        /// An instance-store disk, made of the image's template.
        InstanceStore = "instance-store",
    }
}

words! {
    /// The operating system, where it is not Linux or another Unix.
    pub enum Platform as "platform" {
        /// Windows.
        Windows = "windows",
    }
}

words! {
    /// Whose product codes a code is one of.
    pub enum ProductCodeType as "product code type" {
        /// Amazon DevPay's.
        DevPay = "devpay",
        /// AWS Marketplace's.
        Marketplace = "marketplace",
    }
}

impl ImageType {
    /// What ids of such images are.
    #[must_use]
    pub fn kind(self) -> crate::cloud::Kind {
        use crate::cloud::Kind;
        match self {
            Self::Machine => Kind::Image,
            Self::Kernel => Kind::KernelImage,
            Self::Ramdisk => Kind::RamdiskImage,
        }
    }
}

impl Platform {
    /// What bills call the system ("PlatformDetails").
    #[must_use]
    pub fn details(platform: Option<Self>) -> &'static str {
        match platform {
            Some(Self::Windows) => "Windows",
            None => "Linux/UNIX",
        }
    }
}

impl From<crate::image::Architecture> for Architecture {
    fn from(found: crate::image::Architecture) -> Self {
        match found {
            crate::image::Architecture::X86_64 => Self::X86_64,
            crate::image::Architecture::I386 => Self::I386,
        }
    }
}
