package kernel

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// bzImage makes a kernel image as the build of Linux does: boot sector, setup, payload with the size behind it.
func bzImage(tb testing.TB, vmlinux []byte, change func(head []byte)) []byte {
	tb.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		tb.Fatal(err)
	}
	body := binary.LittleEndian.AppendUint32(z.EncodeAll(vmlinux, nil), uint32(len(vmlinux)))
	const setup, offset = 2, 64
	head := make([]byte, (setup+1)*sector+offset)
	head[offSetupSects] = setup
	copy(head[offMagic:], "HdrS")
	binary.LittleEndian.PutUint16(head[offVersion:], 0x020f)
	binary.LittleEndian.PutUint32(head[offPayloadOffset:], offset)
	binary.LittleEndian.PutUint32(head[offPayloadLength:], uint32(len(body)))
	if change != nil {
		change(head)
	}
	return append(append(head, body...), "behind it"...)
}

func TestExtractVmlinux(t *testing.T) {
	elf := append([]byte("\x7fELF"), bytes.Repeat([]byte("code"), 50000)...)
	for _, c := range []struct {
		name, bad string // what the error says; "" for none
		image     []byte
	}{
		{"whole", "", bzImage(t, elf, nil)},
		{"no kernel", "not a Linux bzImage", bzImage(t, elf, func(h []byte) { h[offMagic] = 'X' })},
		{"old protocol", "too old", bzImage(t, elf, func(h []byte) { h[offVersion] = 0x07 })},
		{"payload outside", "outside", bzImage(t, elf, func(h []byte) { h[offPayloadLength+3] = 0x7f })},
		{"payload empty", "outside", bzImage(t, elf, func(h []byte) { copy(h[offPayloadLength:], []byte{4, 0, 0, 0}) })},
		{"other compression", "not zstd", bzImage(t, elf, func(h []byte) { h[offPayloadOffset]++ })},
		{"no ELF", "not an ELF", bzImage(t, []byte("hello, no kernel"), nil)},
		{"short", "boot header", []byte("MZ")},
		{"trailer lies", "its trailer says", wrongSize(bzImage(t, elf, nil))},
		{"cut off", "outside", bzImage(t, elf, nil)[:1610]},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			err := extractVmlinux(bytes.NewReader(c.image), int64(len(c.image)), &out)
			if c.bad == "" {
				if err != nil || !bytes.Equal(out.Bytes(), elf) {
					t.Errorf("%d bytes, %v", out.Len(), err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("got %v, want %q", err, c.bad)
			}
		})
	}
}

// wrongSize makes the size behind the payload one byte less than it is.
func wrongSize(image []byte) []byte {
	image[len(image)-len("behind it")-4]--
	return image
}

func FuzzExtractVmlinux(f *testing.F) {
	f.Add(bzImage(f, []byte("\x7fELF and more"), nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, image []byte) {
		var n counter
		_ = extractVmlinux(bytes.NewReader(image), int64(len(image)), &n)
		if n > maxVmlinux+1 {
			t.Errorf("%d bytes", n)
		}
	})
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

const sampleDep = `kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/char/hw_random/virtio-rng.ko.xz:
kernel/fs/overlayfs/overlay.ko:
`

func TestLoadOrder(t *testing.T) {
	deps, err := parseDepends(strings.NewReader(sampleDep))
	if err != nil {
		t.Fatal(err)
	}
	builtin, err := parseBuiltin(strings.NewReader("kernel/fs/ext4/ext4.ko\nkernel/drivers/char/virtio_console.ko\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := loadOrder([]string{"ext4", "virtio_net", "virtio_rng", "net_failover", "overlay"}, deps, builtin)
	want := []string{
		"kernel/net/core/failover.ko.xz", "kernel/drivers/net/net_failover.ko.xz", "kernel/drivers/net/virtio_net.ko.xz",
		"kernel/drivers/char/hw_random/virtio-rng.ko.xz", "kernel/fs/overlayfs/overlay.ko",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := loadOrder([]string{"nonsense"}, deps, builtin); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("got %v", err)
	}
}

func TestParseDependsRefuses(t *testing.T) {
	for _, in := range []string{"no colon\n", "../x.ko:\n", "/etc/x.ko:\n", "a/x.ko: ../../etc/shadow.ko\n", "a/x.ko: a/passwd\n", ".ko:\n"} {
		if deps, err := parseDepends(strings.NewReader(in)); err == nil {
			t.Errorf("%q gives %v", in, deps)
		}
	}
}

func FuzzParseDepends(f *testing.F) {
	f.Add(sampleDep)
	f.Fuzz(func(t *testing.T, in string) {
		deps, err := parseDepends(strings.NewReader(in))
		if err != nil {
			return
		}
		for name := range deps {
			files, err := loadOrder([]string{name}, deps, nil)
			if err != nil || len(files) == 0 {
				t.Fatalf("%s: %v", name, err)
			}
			for _, p := range files {
				if strings.HasPrefix(p, "/") || slices.Contains(strings.Split(p, "/"), "..") {
					t.Errorf("path %q", p)
				}
			}
		}
	})
}

func TestImagePackage(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"linux-image-6.12.118+deb13-cloud-amd64 (= 6.12.118-1)", "linux-image-6.12.118+deb13-cloud-amd64"},
		{"kmod, linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-9-cloud-amd64"},
		{"linux-image-generic", ""},
		{"", ""},
		{"linux-image-6;rm -rf", ""},
	} {
		got, err := imagePackage(c.in)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q gives %q, %v", c.in, got, err)
		}
	}
}
