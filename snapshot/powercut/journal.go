package powercut

import (
	"fmt"
	"os"
	"time"
)

// Journal is what a load says, a line each. It is a file that is not on the disk, and outlives the load.
//
//	op FILE N write OFF LEN      is begun. N counts all operations of the load and tells what is written: see fill
//	op FILE N truncate SIZE
//	synced FILE N                promise: FILE as it was after operation N is durable
//	replace FILE N LEN           a new file of LEN bytes is about to take the place of FILE
//	replaced FILE N              promise
//	name N link|rename|unlink A [B]
//	named N                      promise: the names as they were after operation N are durable
//	snap NAME HASH               a snapshot of a tree with that digest is begun
//	snapped NAME                 promise
//	delete NAME                  is begun
//	deleted NAME                 promise
//	ready                        the tree is open and the load begins
//	at WHERE                     the store is about to touch the disk (in a load that says so)
//	ended WHY                    an operation failed; the load is over
type Journal struct {
	file *os.File
}

// OpenJournal opens the journal at path for a load to append to.
func OpenJournal(path string) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	return &Journal{f}, err
}

// Say appends a line.
func (j *Journal) Say(format string, args ...any) {
	if _, err := fmt.Fprintf(j.file, format+"\n", args...); err != nil {
		panic(err) // in a load, which is a process that only tests start
	}
}

// End says why a load ends, and waits to be killed.
func (j *Journal) End(why error) {
	j.Say("ended %q", why.Error())
	time.Sleep(time.Hour)
}
