package store

import "errors"

// Errors of the store itself. Match them with errors.Is: the text around them names
// the folder, the index or the replica.
var (
	// ErrNotLeader: this replica does not lead, and nothing was committed.
	ErrNotLeader = errors.New("not the leader")
	// ErrUncertain: leadership, the disk or the caller's context went away while the
	// command was on its way. It may or may not commit; ask again after reading.
	ErrUncertain = errors.New("outcome unknown")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("store closed")
	// ErrInUse: another process has the folder open.
	ErrInUse = errors.New("folder in use by another process")
	// ErrFull: the disk is full. The store has stopped; open it again with free space.
	ErrFull = errors.New("disk full")
	// ErrFailed: a write or fsync failed. The store has stopped and takes no more
	// commands; what it acknowledged is on disk. Open it again.
	ErrFailed = errors.New("store failed")
	// ErrCorrupt: a file of the store is damaged in a way that nothing can repair
	// from here: restore a backup, or remove the replica and add it anew.
	ErrCorrupt = errors.New("store corrupt")
	// ErrNewer: a committed command is one of a newer build, which this one does not
	// know. The replica has stopped; it goes on where it was after an upgrade.
	ErrNewer = errors.New("command of a newer build")
	// ErrOlder: the command is of a kind that a member does not know yet. Nothing was committed; upgrade that
	// member, or remove it.
	ErrOlder = errors.New("a replica runs an older build")
	// ErrOtherCluster: the other replica, or the folder, belongs to another cluster.
	ErrOtherCluster = errors.New("replica of another cluster")
	// ErrUnreachable: a replica does not answer at the address given, or does not catch up.
	ErrUnreachable = errors.New("replica does not answer")
	// ErrConfig: a field of Config is wrong.
	ErrConfig = errors.New("invalid config")
)

// Errors of a refused command, in Result.Err. A refused command changed nothing.
var (
	// ErrInvalid: the command is malformed or contradicts itself.
	ErrInvalid = errors.New("invalid command")
	// ErrNotFound: what the command names does not exist.
	ErrNotFound = errors.New("not found")
	// ErrExists: what the command would create exists with other content.
	ErrExists = errors.New("already exists")
	// ErrState: the job or task is in a state that does not allow it.
	ErrState = errors.New("not allowed in this state")
	// ErrSession: the worker's session is not its current one.
	ErrSession = errors.New("not the worker's current session")
	// ErrNumber: a new trial's number is not the job's last + 1.
	ErrNumber = errors.New("not the next trial number")
	// ErrAttempt: the task's current attempt is another one.
	ErrAttempt = errors.New("not the current attempt")
	// ErrDeviceMismatch: the device record holds another fingerprint.
	ErrDeviceMismatch = errors.New("device has another fingerprint")
)
