package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
)

// remount changes the flags of a mount, as `mount -o remount` asks its helper to. The daemon notices by itself; what else it
// was mounted with stays.
func remount(plan mountPlan) error {
	m, err := control.Find(plan.point)
	if err != nil {
		return err
	}
	if m.Point != plan.point || m.Source != plan.store {
		return control.Errorf(control.NoMount, "%s is not mounted at %s", plan.store, plan.point)
	}
	opt := plan.options
	flags := uintptr(opt.flags) | unix.MS_REMOUNT
	for _, f := range [...]struct {
		on   bool
		flag uintptr
	}{{opt.readOnly, unix.MS_RDONLY}, {!opt.dev, unix.MS_NODEV}, {!opt.suid, unix.MS_NOSUID}} {
		if f.on {
			flags |= f.flag
		}
	}
	if err := unix.Mount(plan.store, plan.point, "", flags, ""); err != nil {
		return fmt.Errorf("remount %s: %w", plan.point, err)
	}
	return nil
}
