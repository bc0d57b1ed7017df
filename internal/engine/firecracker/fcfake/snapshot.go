package fcfake

import (
	"encoding/json"
	"hash/crc32"
	"io"
	"os"
	"strings"
)

// kept is the state of a machine, as the double writes it.
type kept struct {
	Version string
	Size    uint64
	Drives  []keptDrive
	Socket  string
	Sum     uint32 // of all the rest
}

type keptDrive struct {
	ID, Path string
	ReadOnly bool
}

func (k kept) sum() uint32 {
	k.Sum = 0
	b, _ := json.Marshal(k)
	return crc32.ChecksumIEEE(b)
}

// create writes a snapshot: all of the memory, zeros too.
func (m *monitor) create(body []byte) error {
	var c struct {
		Type   string `json:"snapshot_type"`
		State  string `json:"snapshot_path"`
		Memory string `json:"mem_file_path"`
	}
	if err := strict(body, &c); err != nil {
		return err
	}
	switch {
	case !m.started:
		return refuse("The requested operation is not supported before starting the microVM.")
	case !m.paused:
		return refuse("Create snapshot error: Cannot save the microVM state: The microVM is not paused")
	case c.Type != "Full":
		return refuse("Diff snapshots are not allowed on uVMs with dirty page tracking disabled.")
	}
	k := kept{Version: m.version, Size: m.size, Socket: m.socket}
	for id, d := range m.drives {
		k.Drives = append(k.Drives, keptDrive{id, d.path, d.readOnly})
	}
	k.Sum = k.sum()
	state, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := write(c.State, state); err != nil {
		return refuse("Create snapshot error: Cannot write the state: %s", code(err))
	}
	memory := make([]byte, m.size<<20)
	copy(memory, m.word)
	if err := write(c.Memory, memory); err != nil {
		return refuse("Create snapshot error: Cannot create memory file: %s", code(err))
	}
	return nil
}

func write(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // what the test names
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// code words an error as Rust does.
func code(err error) string {
	if strings.HasSuffix(err.Error(), "no space left on device") {
		return "No space left on device (os error 28)"
	}
	return err.Error()
}

// load makes the machine of a snapshot. One that cannot be made ends the program, as it ends the real one.
func (m *monitor) load(id string, body []byte) error {
	var l struct {
		State  string `json:"snapshot_path"`
		Memory *struct {
			Type string `json:"backend_type"`
			Path string `json:"backend_path"`
		} `json:"mem_backend"`
		File     *string `json:"mem_file_path"`
		Diff     bool    `json:"enable_diff_snapshots"`
		Track    bool    `json:"track_dirty_pages"`
		Resume   bool    `json:"resume_vm"`
		Networks []struct {
			ID   string `json:"iface_id"`
			Host string `json:"host_dev_name"`
		} `json:"network_overrides"`
	}
	if err := strict(body, &l); err != nil {
		return err
	}
	switch {
	case id != "load":
		return refuse("Invalid request method and/or path: PUT snapshot/%s.", id)
	case m.told:
		return refuse("Loading a microVM snapshot not allowed after configuring boot-specific resources.")
	case l.Memory == nil || l.Memory.Type != "File":
		return refuse("missing field: either `mem_backend` or `mem_file_path` is required")
	}
	err := m.restore(l.State, l.Memory.Path)
	if err != nil {
		m.logf("Load snapshot error: %v", err)
		m.done <- 1
		return err
	}
	m.started, m.paused, m.resumed = true, true, make(chan struct{})
	if l.Resume {
		m.paused = false
		close(m.resumed)
	}
	go m.serveGuest()
	return nil
}

func (m *monitor) restore(state, memory string) error {
	b, err := os.ReadFile(state) //nolint:gosec // what the test names
	if err != nil {
		return refuse("Load snapshot error: Failed to open the snapshot state file: %v", err)
	}
	var k kept
	if json.Unmarshal(b, &k) != nil || k.Sum != k.sum() {
		return refuse("Load snapshot error: Failed to get snapshot state from file: CRC64 validation failed")
	}
	if k.Version != m.version {
		return refuse("Load snapshot error: Failed to get snapshot state from file: Invalid format version (found %s)", k.Version)
	}
	for _, d := range k.Drives {
		if err := m.open(d.ID, d.Path, d.ReadOnly); err != nil {
			return err
		}
	}
	f, err := os.Open(memory) //nolint:gosec // what the test names
	if err != nil {
		return refuse("Load snapshot error: Failed to load guest memory: %v", err)
	}
	defer func() { _ = f.Close() }()
	word, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return refuse("Load snapshot error: Failed to load guest memory: %v", err)
	}
	before, _, _ := strings.Cut(string(word), "\x00")
	m.word, m.size = before, k.Size
	return m.listen(k.Socket)
}
