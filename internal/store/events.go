package store

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/google/renameio/v2"

	"github.com/smolvm/smolvm/api"
)

// Limits of a VM's events: of the file, whose older half goes when it is full, and of one line.
const (
	maxEvents = 1 << 20
	maxEvent  = 16 << 10
)

// AppendEvent adds an event to those of the VM id. The caller holds its lock. A zero time means now.
func (s *Store) AppendEvent(id string, e api.Event) error {
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	b, err := json.Marshal(e)
	if err == nil && len(b) > maxEvent {
		b, err = json.Marshal(api.Event{Time: e.Time, Type: e.Type, State: e.State, Reason: "too long to be kept"})
	}
	if err != nil {
		return err
	}
	path := s.Path(id, eventsFile)
	if st, err := os.Stat(path); err == nil && st.Size()+int64(len(b)) >= maxEvents {
		if err := halve(path); err != nil {
			return hostError("shorten the events of the VM "+id, err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600) //nolint:gosec // our own file
	if err != nil {
		return hostError("write the events of the VM "+id, err)
	}
	_, err = f.Write(append(b, '\n'))
	return hostError("write the events of the VM "+id, errors.Join(err, f.Close()))
}

// halve keeps the newer half of a file, from the beginning of a line on.
func halve(path string) error {
	b, err := os.ReadFile(path) //nolint:gosec // our own file, and bounded by us
	if err != nil {
		return err
	}
	b = b[len(b)/2:]
	b = b[bytes.IndexByte(b, '\n')+1:]
	return renameio.WriteFile(path, b, 0o600)
}

// Events returns the events of the VM id, oldest first. A line that cannot be read (a crash in its middle) is left out.
func (s *Store) Events(id string) ([]api.Event, error) {
	if err := api.ValidateID(id); err != nil {
		return nil, err
	}
	f, err := os.Open(s.Path(id, eventsFile))
	if errors.Is(err, fs.ErrNotExist) {
		if !s.Exists(id) {
			return nil, NotFound(id)
		}
		return nil, nil
	}
	if err != nil {
		return nil, hostError("read the events of the VM "+id, err)
	}
	defer func() { _ = f.Close() }()
	var events []api.Event
	lines := bufio.NewScanner(io.LimitReader(f, 2*maxEvents))
	lines.Buffer(nil, 2*maxEvent)
	for lines.Scan() {
		var e api.Event
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			events = append(events, e)
		}
	}
	return events, hostError("read the events of the VM "+id, lines.Err())
}
