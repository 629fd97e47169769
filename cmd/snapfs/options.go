package main

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs"
	"github.com/snapfs/snapfs/fs/control"
)

// mountOptions is what -o says.
type mountOptions struct {
	readOnly      bool
	remount       bool // change the flags of a mount that is there
	allowOther    bool
	visible       bool // snapdir=visible
	writeback     bool
	dev, suid     bool
	flags         fs.Flags // of mount(2)
	noACL         bool
	stopOnError   bool          // stop_writes_on_error
	dirtyLimit    int64         // bytes; 0 means the default
	flushInterval time.Duration // 0 means the default
}

const knownOptions = "ro, allow_other, acl|noacl, snapdir=hidden|visible, writeback=off|on, dirty_limit=SIZE, flush_interval=DURATION, stop_writes_on_error"

// parseOptions reads the values of all -o flags, each a comma separated list; a later option overrides an earlier one.
func parseOptions(lists []string, root bool) (mountOptions, error) {
	opt := mountOptions{allowOther: root}
	for _, list := range lists {
		for _, option := range strings.Split(list, ",") {
			if err := opt.set(strings.TrimSpace(option)); err != nil {
				return mountOptions{}, err
			}
		}
	}
	if opt.stopOnError && opt.writeback {
		return mountOptions{}, control.Errorf(control.Usage, "option stop_writes_on_error: needs writeback=off, or the kernel would go on accepting writes")
	}
	return opt, nil
}

func (opt *mountOptions) set(option string) error {
	name, value, hasValue := strings.Cut(option, "=")
	var err error
	switch {
	case option == "remount":
		opt.remount = true
	case option == "" || isMountOption(option) || opt.setFlag(option):
	case option == "ro":
		opt.readOnly = true
	case option == "rw":
		opt.readOnly = false
	case option == "allow_other":
		opt.allowOther = true
	case option == "dev", option == "nodev":
		opt.dev = option == "dev"
	case option == "suid", option == "nosuid":
		opt.suid = option == "suid"
	case option == "noacl", option == "acl":
		opt.noACL = option == "noacl"
	case option == "stop_writes_on_error":
		opt.stopOnError = true
	case name == "snapdir" && hasValue:
		opt.visible, err = oneOf(option, value, "visible", "hidden")
	case name == "writeback" && hasValue:
		opt.writeback, err = oneOf(option, value, "on", "off")
	case name == "dirty_limit" && hasValue:
		opt.dirtyLimit, err = parseSize(value)
		if err != nil || opt.dirtyLimit < leastDirtyLimit {
			err = control.Errorf(control.Usage, "option %s: needs a size of 1M or more, such as dirty_limit=256M", option)
		}
	case name == "flush_interval" && hasValue:
		opt.flushInterval, err = time.ParseDuration(value)
		if err != nil || opt.flushInterval <= 0 {
			err = control.Errorf(control.Usage, "option %s: needs a duration, such as flush_interval=500ms", option)
		}
	default:
		err = control.Errorf(control.Usage, "unknown option %q; known are %s", option, knownOptions)
	}
	return err
}

// leastDirtyLimit is the least room for private pages in bytes: one write request must fit into it.
const leastDirtyLimit = 1 << 20

// oneOf reports which of two words value is.
func oneOf(option, value, yes, no string) (bool, error) {
	if value != yes && value != no {
		return false, control.Errorf(control.Usage, "option %s: the value is %s or %s", option, no, yes)
	}
	return value == yes, nil
}

// setFlag sets what an option means for the flags of mount(2), and reports whether it means anything.
func (opt *mountOptions) setFlag(option string) bool {
	for _, f := range [...]struct {
		option     string
		set, clear fs.Flags
	}{
		{"noexec", unix.MS_NOEXEC, 0}, {"exec", 0, unix.MS_NOEXEC},
		{"noatime", unix.MS_NOATIME, unix.MS_STRICTATIME | unix.MS_RELATIME}, {"atime", 0, unix.MS_NOATIME},
		{"strictatime", unix.MS_STRICTATIME, unix.MS_NOATIME | unix.MS_RELATIME}, {"nostrictatime", 0, unix.MS_STRICTATIME},
		{"relatime", unix.MS_RELATIME, unix.MS_NOATIME | unix.MS_STRICTATIME}, {"norelatime", 0, unix.MS_RELATIME},
		{"nodiratime", unix.MS_NODIRATIME, 0}, {"diratime", 0, unix.MS_NODIRATIME},
		{"sync", unix.MS_SYNCHRONOUS, 0}, {"async", 0, unix.MS_SYNCHRONOUS},
		{"dirsync", unix.MS_DIRSYNC, 0},
		{"lazytime", unix.MS_LAZYTIME, 0}, {"nolazytime", 0, unix.MS_LAZYTIME},
		{"nosymfollow", unix.MS_NOSYMFOLLOW, 0}, {"symfollow", 0, unix.MS_NOSYMFOLLOW},
	} {
		if f.option == option {
			opt.flags = opt.flags&^f.clear | f.set
			return true
		}
	}
	return false
}

// isMountOption reports whether an option is one that mount(8) or fstab adds for its own use and that changes nothing here.
func isMountOption(option string) bool {
	switch option {
	case "defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "silent", "loud",
		"default_permissions":
		return true
	}
	for _, prefix := range [...]string{"x-", "X-", "comment=", "user=",
		"user_id=", "group_id=", "max_read="} { // with remount mount(8) says all that the mount has
		if strings.HasPrefix(option, prefix) {
			return true
		}
	}
	return false
}
