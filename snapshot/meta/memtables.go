package meta

import "time"

// memtables keeps batches from Pebble while its memtables are nearly full. Pebble would have writers wait inside for one to be written into a
// table, for ever if that always fails; here they wait too, but hear of the failure.
type memtables struct {
	handed int // bytes of batches since their size was looked at
}

// roomStep is how many bytes of batches are handed over before the size is looked at again: in memory they are up to some four times that.
const roomStep = memTableSize / 8

// room waits until a batch of n bytes can be handed over. REQUIRES applying.
func (d *DB) room(n int) error {
	m := &d.memtables
	if m.handed += n; m.handed < roomStep {
		return nil
	}
	for d.db.Metrics().MemTable.Size > (memTables-1)*memTableSize {
		if err := d.writable(); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	m.handed = n
	return nil
}
