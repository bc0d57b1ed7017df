package bootargs

import (
	"strings"
	"testing"
)

func TestClean(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"console=ttyS0 reboot=k panic=1 pci=off nomodules rw init=/sbin/init", "nomodules"},
		{"  quiet   a=1  ro root=/dev/vda1 ip=1.2.3.4::5.6.7.8 b", "a=1 b"},
		{`rdinit=/x "init=/y" dyndbg="file x +p; a b" "rdinit"=/z rd"init"=/q`, `dyndbg="file x +p; a b"`},
		{"console= rootfstype consoleblank=0 rootwait init_on_alloc=1", "consoleblank=0 rootwait init_on_alloc=1"},
	} {
		if got, err := Clean(tt.text); err != nil || got != tt.want {
			t.Errorf("%q: %q, %v", tt.text, got, err)
		}
	}
	for text, says := range map[string]string{
		"a\nb":                         "printable",
		"a\x00":                        "printable",
		"a\u00a0init=/x":               "printable",
		"\xff":                         "printable",
		`a="b`:                         "not closed",
		"a -- b":                       "for init",
		"smolvm.raw":                   "SmolVM's own",
		`"smolvm.drives"`:              "SmolVM's own",
		"smolvm.link=x":                "SmolVM's own",
		strings.Repeat("a", maxLeft+1): "bytes are left",
	} {
		if got, err := Clean(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: %q, %v", text, got, err)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add(`console=x "init=/y" a="b c" --`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Clean(text)
		if err != nil {
			return
		}
		if again, err := Clean(got); err != nil || again != got {
			t.Errorf("%q gives %q, and that %q, %v", text, got, again, err)
		}
	})
}
