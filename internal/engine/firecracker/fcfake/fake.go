// Package fcfake is a program that says it is Firecracker, for tests without KVM: it speaks the API as strictly as release
// 1.12 does (unknown fields, wrong order, wrong ids and paths are refused with its status and its kind of message), and has
// a guest of its own behind the socket device, on the console and in the metrics.
//
// Layer: engine, for tests. It imports engine/enginetest and guest/link.
package fcfake

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/smolvm/smolvm/internal/engine/enginetest"
)

// Version is the one that it says it is, unless its file's name says another.
const Version = "1.12.1"

// KillSocket is where one that is to be killed listens, for its number to be asked of the kernel.
const KillSocket = "kill.sock"

// Install puts the program that runs, which must call Main where Is, into dir as a Firecracker of that version ("": Version)
// with a fault, and returns its path. The faults: "no-resume" has a machine that was loaded refuse to run, "mute" never makes its socket, "deaf" makes it and answers nothing, "dies"
// ends at InstanceStart with 148, "killed-at-" and a resource waits at KillSocket to be killed when that is called and "hangs-at-" does not answer it, "triple" ends with 0 without a word of the guest's, "no-driver" has a guest that never
// answers. A monitor has no environment of ours, so that they stand in the file's name.
func Install(dir, version, fault string) (string, error) {
	path := filepath.Join(dir, strings.Join([]string{"firecracker", version, fault}, "+"))
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if os.Link(self, path) == nil {
		return path, nil
	}
	b, err := os.ReadFile(self) //nolint:gosec // ourselves
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, b, 0o755) //nolint:gosec // it must run
}

// Is reports whether the arguments are those of a Firecracker, so that a test's program can be one.
func Is(args []string) bool {
	return len(args) > 1 && (args[1] == "--version" || args[1] == "--api-sock")
}

// Main is the program.
func Main(args []string) int {
	version, fault := Version, ""
	if name := strings.Split(filepath.Base(args[0]), "+"); len(name) == 3 {
		fault = name[2]
		if name[1] != "" {
			version = name[1]
		}
	}
	flags := flag.NewFlagSet("firecracker", flag.ContinueOnError)
	says := flags.Bool("version", false, "")
	api := flags.String("api-sock", "/run/firecracker.socket", "")
	logs := flags.String("log-path", "", "")
	metrics := flags.String("metrics-path", "", "")
	flags.String("level", "", "")
	if err := flags.Parse(args[1:]); err != nil {
		return 153
	}
	if *says {
		_, _ = fmt.Fprintf(os.Stdout, "Firecracker v%s\n\nexit_code=0\n", version)
		return 0
	}
	m := &monitor{version: version, fault: fault, done: make(chan int, 1), drives: map[string]*drive{}, resumed: make(chan struct{})}
	close(m.resumed)
	for path, to := range map[string]**os.File{*logs: &m.log, *metrics: &m.metrics} {
		f, err := os.OpenFile(path, os.O_WRONLY, 0) //nolint:gosec // what the test names
		if err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			return 1
		}
		*to = f
	}
	if m.fault == "mute" {
		select {}
	}
	l, err := net.Listen("unix", *api) //nolint:noctx // a program's own life
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if m.fault == "deaf" {
		select {}
	}
	m.logf("Successfully started microvm that was configured from the command line")
	go func() { _ = http.Serve(l, m) }() //nolint:gosec // one client, which we are the test of
	return <-m.done
}

// monitor is one Firecracker.
type monitor struct {
	version string
	fault   string
	log     *os.File
	metrics *os.File
	done    chan int

	mu      sync.Mutex
	told    bool
	size    uint64 // of the memory, in MiB
	word    string // all that is in it
	socket  string // of the vsock device, as it was told
	machine bool
	boot    bool
	started bool
	drives  map[string]*drive
	vsock   net.Listener
	resumed chan struct{} // closed while the machine is not paused
	paused  bool
}

type drive struct {
	path                   string
	readOnly               bool
	file                   *os.File
	wrote, told, ops, tops uint64
}

func (m *monitor) logf(format string, args ...any) {
	_, _ = fmt.Fprintf(m.log, "2026-01-01T00:00:00.000000000 [anonymous-instance:main] "+format+"\n", args...)
}

func refuse(format string, args ...any) error { return fmt.Errorf(format, args...) }

// ServeHTTP answers one call.
func (m *monitor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logf("The API server received a %s request on %q.", r.Method, r.URL.Path)
	body, err := io.ReadAll(io.LimitReader(r.Body, 51201))
	if err != nil || len(body) > 51200 {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	out, err := m.call(r.Method+" "+r.URL.Path, body)
	switch {
	case err != nil:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"fault_message": err.Error()})
	case out == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		_ = json.NewEncoder(w).Encode(out)
	}
}

func (m *monitor) call(what string, body []byte) (out any, err error) {
	resource, id, _ := strings.Cut(strings.TrimPrefix(what, "PUT /"), "/")
	if m.at("hangs-at-", what, resource, id) {
		select {}
	}
	if m.at("killed-at-", what, resource, id) {
		// It cannot do it itself: it may be the first process of a PID namespace.
		if _, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: KillSocket}); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		select {}
	}
	switch {
	case what == "GET /version":
		return map[string]string{"firecracker_version": m.version}, nil
	case what == "GET /":
		return map[string]string{"id": "anonymous-instance", "state": m.state(), "vmm_version": m.version, "app_name": "Firecracker"}, nil
	case what == "PATCH /vm":
		return nil, m.setState(body)
	case what == "PUT /actions":
		return nil, m.act(body)
	case what == "PUT /snapshot/create":
		return nil, m.create(body)
	case !strings.HasPrefix(what, "PUT /"):
		return nil, refuse("Invalid request method and/or path: %s.", what)
	case m.started:
		return nil, refuse("The requested operation is not supported after starting the microVM.")
	}
	if what != "PUT /snapshot/load" {
		m.told = true // a machine is made, so that none can be loaded
	}
	switch resource {
	case "snapshot":
		err = m.load(id, body)
	case "machine-config":
		err = m.setMachine(body)
	case "boot-source":
		err = m.setBoot(body)
	case "drives":
		err = m.addDrive(id, body)
	case "vsock":
		err = m.setVsock(body)
	case "network-interfaces":
		err = addNetwork(id, body)
	case "entropy":
		err = strict(body, &struct {
			Limiter *limiter `json:"rate_limiter"`
		}{})
	default:
		err = refuse("Invalid request method and/or path: %s.", what)
	}
	return nil, err
}

// at reports whether a kind of fault comes with this call. The two of a snapshot go by what they do.
func (m *monitor) at(kind, what, resource, id string) bool {
	at, ok := strings.CutPrefix(m.fault, kind)
	if !ok {
		return false
	}
	switch what {
	case "GET /version":
		return at == "version"
	case "PATCH /vm":
		return at == "vm"
	case "PUT /snapshot/create", "PUT /snapshot/load":
		return at == id
	}
	return at == resource
}

func (m *monitor) state() string {
	switch {
	case !m.started:
		return "Not started"
	case m.paused:
		return "Paused"
	}
	return "Running"
}

// strict decodes as serde does with deny_unknown_fields.
func strict(body []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return refuse("An error occurred when deserializing the json body of a request: %v.", err)
	}
	return nil
}

type bucket struct {
	Size   uint64  `json:"size"`
	Burst  *uint64 `json:"one_time_burst"`
	Refill uint64  `json:"refill_time"`
}

type limiter struct {
	Bandwidth *bucket `json:"bandwidth"`
	Ops       *bucket `json:"ops"`
}

func (m *monitor) setMachine(body []byte) error {
	var c struct {
		CPUs     uint8   `json:"vcpu_count"`
		Memory   uint64  `json:"mem_size_mib"`
		SMT      bool    `json:"smt"`
		Template *string `json:"cpu_template"`
		Track    bool    `json:"track_dirty_pages"`
		Huge     *string `json:"huge_pages"`
	}
	if err := strict(body, &c); err != nil {
		return err
	}
	if c.CPUs == 0 || c.CPUs > 32 || c.Memory == 0 {
		return refuse("The vCPU number or the memory size is invalid.")
	}
	m.machine, m.size = true, c.Memory
	return nil
}

func (m *monitor) setBoot(body []byte) error {
	var b struct {
		Kernel string  `json:"kernel_image_path"`
		Initrd *string `json:"initrd_path"`
		Args   *string `json:"boot_args"`
	}
	if err := strict(body, &b); err != nil {
		return err
	}
	paths := []string{b.Kernel}
	if b.Initrd != nil {
		paths = append(paths, *b.Initrd)
	}
	for _, p := range paths {
		f, err := os.Open(p) //nolint:gosec // what the test names
		if err != nil {
			return refuse("Boot source error: The kernel file cannot be opened: %v", err)
		}
		_ = f.Close()
	}
	if b.Args != nil && len(*b.Args) > 2048 {
		return refuse("The kernel command line is invalid: capacity exceeded")
	}
	m.boot = true
	return nil
}

var resourceID = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

func (m *monitor) addDrive(id string, body []byte) error {
	var d struct {
		ID       string   `json:"drive_id"`
		UUID     *string  `json:"partuuid"`
		Root     *bool    `json:"is_root_device"`
		Cache    string   `json:"cache_type"`
		ReadOnly *bool    `json:"is_read_only"`
		Path     *string  `json:"path_on_host"`
		Limiter  *limiter `json:"rate_limiter"`
		Engine   *string  `json:"io_engine"`
		Socket   *string  `json:"socket"`
	}
	if err := strict(body, &d); err != nil {
		return err
	}
	switch {
	case d.ID != id:
		return refuse("The id from the path [%s] does not match the id from the body [%s]!", id, d.ID)
	case !resourceID.MatchString(id):
		return refuse("API Resource IDs can only contain alphanumeric characters and underscores.")
	case d.Path == nil || d.Root == nil:
		return refuse("missing field")
	case d.Cache != "" && d.Cache != "Unsafe" && d.Cache != "Writeback":
		return refuse("unknown variant `%s`, expected `Unsafe` or `Writeback`", d.Cache)
	}
	return m.open(id, *d.Path, d.ReadOnly != nil && *d.ReadOnly)
}

func (m *monitor) open(id, path string, readOnly bool) error {
	flag := os.O_RDWR
	if readOnly {
		flag = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flag, 0) //nolint:gosec // what the test names
	if err != nil {
		return refuse("Drive config error: Unable to create the virtio block device: BackingFile(%v, %q)", err, path)
	}
	m.drives[id] = &drive{file: f, path: path, readOnly: readOnly}
	return nil
}

func addNetwork(id string, body []byte) error {
	var n struct {
		ID   string   `json:"iface_id"`
		Host string   `json:"host_dev_name"`
		MAC  *string  `json:"guest_mac"`
		RX   *limiter `json:"rx_rate_limiter"`
		TX   *limiter `json:"tx_rate_limiter"`
	}
	if err := strict(body, &n); err != nil {
		return err
	}
	if n.ID != id || !resourceID.MatchString(id) {
		return refuse("The id from the path [%s] does not match the id from the body [%s]!", id, n.ID)
	}
	if _, err := net.InterfaceByName(n.Host); err != nil {
		return refuse("Network config error: Could not create the network device: Open tap device failed: %v", err)
	}
	return nil
}

func (m *monitor) setVsock(body []byte) error {
	var v struct {
		CID  uint32  `json:"guest_cid"`
		Path string  `json:"uds_path"`
		ID   *string `json:"vsock_id"`
	}
	if err := strict(body, &v); err != nil {
		return err
	}
	if v.CID < 3 {
		return refuse("Invalid guest CID")
	}
	return m.listen(v.Path)
}

func (m *monitor) listen(path string) error {
	l, err := net.Listen("unix", path) //nolint:noctx // a program's own life
	if err != nil {
		return refuse("Cannot create backend for vsock device: UnixBind(%v)", err)
	}
	m.vsock, m.socket = l, path
	return nil
}

func (m *monitor) setState(body []byte) error {
	var s struct {
		State string `json:"state"`
	}
	if err := strict(body, &s); err != nil {
		return err
	}
	if !m.started {
		return refuse("The requested operation is not supported before starting the microVM.")
	}
	switch s.State {
	case "Paused":
		if !m.paused {
			m.paused, m.resumed = true, make(chan struct{})
		}
	case "Resumed":
		if m.fault == "no-resume" {
			return refuse("Failed to resume the microVM: VcpuResume")
		}
		if m.paused {
			m.paused = false
			close(m.resumed)
		}
	default:
		return refuse("unknown variant `%s`, expected `Paused` or `Resumed`", s.State)
	}
	return nil
}

func (m *monitor) act(body []byte) error {
	var a struct {
		Type string `json:"action_type"`
	}
	if err := strict(body, &a); err != nil {
		return err
	}
	switch a.Type {
	case "InstanceStart":
		return m.start()
	case "FlushMetrics":
		if !m.started {
			return refuse("The requested operation is not supported before starting the microVM.")
		}
		return m.flush()
	}
	return refuse("unknown variant `%s`", a.Type)
}

func (m *monitor) start() error {
	switch {
	case m.started:
		return refuse("The requested operation is not supported after starting the microVM.")
	case !m.boot:
		return refuse("Cannot start microvm without kernel configuration.")
	}
	m.started = true
	switch m.fault {
	case "dies":
		m.logf("Shutting down VM after intercepting a bad syscall (59).")
		m.done <- 148
		select {}
	case "triple":
		m.logf("Received KVM_EXIT_SHUTDOWN signal")
		m.done <- 0
		return nil
	}
	if m.vsock != nil {
		go m.serveGuest()
	}
	return nil
}

// flush writes what was counted since it was written before.
func (m *monitor) flush() error {
	line := map[string]any{"utc_timestamp_ms": 1, "vmm": map[string]int{"panic_count": 0}}
	for id, d := range m.drives {
		line["block_"+id] = map[string]uint64{"write_bytes": d.wrote - d.told, "write_count": d.ops - d.tops, "read_bytes": 0, "read_count": 0, "flush_count": 0}
		d.told, d.tops = d.wrote, d.ops
	}
	return json.NewEncoder(m.metrics).Encode(line)
}

var _ enginetest.Guest = (*guest)(nil)
