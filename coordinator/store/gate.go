package store

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Commands is the number of the newest kind of command that this build knows. A replica tells it, and it is in its record:
// a kind that is newer is not committed before every member knows it, since it would stop those that do not (ErrNewer).
var Commands = newestCommand()

// firstCommands is what builds knew that did not tell.
const firstCommands = 16

// operations is the field of Command that says of which kind it is.
var operations = (&v1.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("op")

func newestCommand() (n uint32) {
	for i := range operations.Fields().Len() {
		n = max(n, uint32(operations.Fields().Get(i).Number()))
	}
	return n
}

// kindOf is the number of a command's kind, also of one that this build does not know; of a batch the newest in it.
func kindOf(cmd *v1.Command) uint32 {
	m := cmd.ProtoReflect()
	var kind protoreflect.FieldNumber
	if f := m.WhichOneof(operations); f != nil {
		kind = f.Number()
	} else if u := m.GetUnknown(); len(u) > 0 {
		kind, _, _ = protowire.ConsumeField(u)
	}
	n := uint32(max(0, kind))
	for _, c := range cmd.GetBatch().GetCommands() {
		n = max(n, kindOf(c))
	}
	return n
}

// mayCommit refuses, with ErrOlder, commands that a member does not know. What all builds know costs nothing to ask.
func (s *Store) mayCommit(cmds []*v1.Command) error {
	kind := uint32(0)
	for _, c := range cmds {
		kind = max(kind, kindOf(c))
	}
	if kind <= firstCommands {
		return nil
	}
	members, err := s.Members()
	if err != nil {
		return err
	}
	return s.View(func(v *View) error {
		return knownToAll(kind, Commands, s.id, members, v.Replica)
	})
}

// knownToAll checks a kind of command against what this replica knows and what the records say of the others.
func knownToAll(kind, own uint32, self string, members []Member, record func(id string) *v1.Replica) error {
	for _, m := range members {
		knows, build := own, "this one"
		if m.ID != self {
			r := record(m.ID)
			knows, build = max(firstCommands, r.GetCommands()), "build "+r.GetVersion()
			if r.GetVersion() == "" {
				build = "not heard of yet"
			}
		}
		if kind > knows {
			return fmt.Errorf("%w: command %d, replica %s (%s) knows those up to %d: upgrade it", ErrOlder, kind, m.ID, build, knows)
		}
	}
	return nil
}
