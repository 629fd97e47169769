package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is a file system and how it is made and mounted.
type Kind struct {
	Name     string
	mkfs     []string
	options  string // of mount(8). A long commit interval, so that nothing is saved by luck
	Shutdown bool   // knows FS_IOC_SHUTDOWN
}

// Kinds returns the file systems that a store is tried on.
func Kinds() []Kind {
	return []Kind{
		{"ext4", []string{"mkfs.ext4", "-q", "-F"}, "loop,commit=300", true},
		{"ext4-writeback", []string{"mkfs.ext4", "-q", "-F"}, "loop,commit=300,data=writeback", true},
		{"xfs", []string{"mkfs.xfs", "-q", "-f"}, "loop,nouuid", true},
		{"btrfs", []string{"mkfs.btrfs", "-q", "-f"}, "loop,commit=300", false},
	}
}

// Disk is a file system in an image, mounted at Point.
type Disk struct {
	Kind
	Point string
	dir   string
	outer string // where an xfs is mounted that holds the images, "" if they cannot be copied
}

// imageBytes is the size of a disk. XFS makes none below 300 MiB.
const imageBytes = 320 << 20

// NewDisk makes a disk below dir, which is best in memory, and mounts it. With copies, Copy works.
func NewDisk(dir string, kind Kind, copies bool) (*Disk, error) {
	d := &Disk{Kind: kind, Point: filepath.Join(dir, "disk"), dir: dir}
	if copies {
		d.outer = filepath.Join(dir, "images")
		if err := d.makeOuter(); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	err := first(os.Mkdir(d.Point, 0o700), makeImage(d.image(0), imageBytes))
	if err == nil {
		err = run(kind.mkfs[0], append(kind.mkfs[1:], d.image(0))...)
	}
	if err == nil {
		err = d.Mount()
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// makeOuter makes the file system whose files can be copied in one instant.
func (d *Disk) makeOuter() error {
	if err := first(os.Mkdir(d.outer, 0o700), makeImage(d.outerImage(), 8*imageBytes)); err != nil {
		return err
	}
	if err := run("mkfs.xfs", "-q", "-f", "-m", "reflink=1", d.outerImage()); err != nil {
		return err
	}
	return run("mount", "-o", "loop", d.outerImage(), d.outer)
}

// image returns the path of copy n, 0 of the disk itself.
func (d *Disk) image(n int) string {
	if d.outer != "" {
		return filepath.Join(d.outer, fmt.Sprint("image", n))
	}
	return filepath.Join(d.dir, fmt.Sprint("image", n))
}

// Mount mounts the disk.
func (d *Disk) Mount() (err error) {
	mount := func() error { return run("mount", "-o", d.options, d.image(0), d.Point) }
	if d.Name != "btrfs" {
		return mount()
	}
	// It remembers devices by the number in their images, and copies have the same: for a moment also when they were told to go.
	failed := eventually(func() error {
		_ = run("btrfs", "device", "scan", "--forget")
		if err = mount(); err != nil && strings.Contains(strings.ToLower(err.Error()), unix.EEXIST.Error()) {
			return err
		}
		return nil
	})
	return first(failed, err)
}

// Unmount unmounts the disk. Who was killed a moment ago may still be on it.
func (d *Disk) Unmount() error {
	err := unmount(d.Point, d.image(0))
	if !errors.Is(err, errInUse) || d.outer != "" {
		return err
	}
	// What was shut down does not change any more: a copy is another disk with the same bytes.
	image, another := d.image(0), d.image(0)+"~"
	if err := run("cp", "--sparse=always", image, another); err != nil {
		return err
	}
	return os.Rename(another, image)
}

var errInUse = errors.New("still in use")

// unmount unmounts and waits until nobody has the image any more. Another process may have a mount table of its own, with a copy of this
// mount: as long as that is there, mounting the image again would show the file system as it was, shut down and all.
func unmount(point, image string) error {
	err := eventually(func() error { return unix.Unmount(point, 0) })
	if err != nil && !errors.Is(err, unix.EINVAL) { // it is not mounted
		return fmt.Errorf("unmount %s: %w", point, err)
	}
	return eventually(func() error {
		out, err := exec.Command("losetup", "-j", image).CombinedOutput()
		if err != nil || len(out) > 0 {
			return fmt.Errorf("%s: %w: %v %s", image, errInUse, err, bytes.TrimSpace(out))
		}
		return nil
	})
}

// eventually tries until it succeeds, for half a minute.
func eventually(try func() error) (err error) {
	for start := time.Now(); time.Since(start) < 30*time.Second; time.Sleep(10 * time.Millisecond) {
		if err = try(); err == nil || errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return err
}

// Close takes the disk away.
func (d *Disk) Close() error {
	err := d.Unmount()
	if d.outer != "" {
		err = first(err, unmount(d.outer, d.outerImage()))
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(d.dir)
}

func (d *Disk) outerImage() string { return filepath.Join(d.dir, "outer") }

// Cut shuts the file system down without flushing its log (FS_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, see
// fs/ext4/ioctl.c and fs/xfs/xfs_ioctl.c of Linux). From then on everything on it fails with EIO, until it is mounted again.
func (d *Disk) Cut() error {
	const fsIOCShutdown, noLogFlush = 0x8004587d, 2
	f, err := os.Open(d.Point)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), fsIOCShutdown, noLogFlush); err != nil {
		return fmt.Errorf("shut %s down: %w", d.Point, err)
	}
	return nil
}

// Copy copies the image as it is at one instant: a crash image. n counts from 1.
func (d *Disk) Copy(n int) error {
	from, err := os.Open(d.image(0))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(d.image(n))
	if err != nil {
		return err
	}
	defer to.Close()
	if err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd())); err != nil {
		return fmt.Errorf("copy the image: %w", err)
	}
	return nil
}

// Become makes copy n the disk; it is unmounted before and after.
func (d *Disk) Become(n int) error { return os.Rename(d.image(n), d.image(0)) }

func makeImage(path string, size int64) error {
	return first(os.WriteFile(path, nil, 0o600), os.Truncate(path, size))
}

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// first returns the first error. (Its arguments have all been evaluated.)
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
