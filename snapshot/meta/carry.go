package meta

import "time"

// Pebble keeps what is committed without a sync in its own memory, until a block of its log is full or somebody syncs: a killed daemon
// would lose it, be it a minute old. So a moment after such a commit the log is written out: handed to the kernel, which keeps it
// when only the daemon dies, and not synced.
//
// Pebble has no way to say that. So it is told to sync, and the guard leaves the sync out where nobody else waits for one.

// carryAfter is how long a batch may stay in memory: long enough that many go together.
const carryAfter = 20 * time.Millisecond

// carrier is the goroutine that does it.
type carrier struct {
	kick, stop, done chan struct{}
}

func newCarrier() *carrier {
	return &carrier{kick: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// soon has the log written out in a moment.
func (c *carrier) soon() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// run carries until end is called.
func (c *carrier) run(d *DB) {
	defer close(c.done)
	for {
		select {
		case <-c.stop:
			return
		case <-c.kick:
		}
		select {
		case <-c.stop:
			return
		case <-time.After(carryAfter):
		}
		d.carry()
	}
}

// end stops the goroutine, and returns when it has stopped. It is not waited for for ever: it may hang where Pebble does.
func (c *carrier) end() {
	close(c.stop)
	select {
	case <-c.done:
	case <-time.After(fullPatience):
	}
}

// carry hands what Pebble holds of its log to the kernel. A failure is kept, as of every write of the log (I11).
func (d *DB) carry() {
	if d.Err() != nil || d.synced.Load() >= d.committed.Load() {
		return
	}
	b := d.db.NewBatch()
	if b.LogData([]byte{1}, nil) != nil {
		return
	}
	d.guard.soft.Add(1)
	defer d.guard.soft.Add(-1)
	if _, err := d.hand("write out", b, true, 0); err == nil {
		_ = b.Close()
	}
}
