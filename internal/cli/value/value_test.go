package value

import (
	"maps"
	"strings"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	tests := []struct {
		name, text string
		want       int // 0: refused
	}{
		{"plain is MiB", "768", 768},
		{"m", "512m", 512},
		{"g", "2g", 2048},
		{"GiB", "2GiB", 2048},
		{"half", "1.5g", 1536},
		{"bytes", "1048576b", 1},
		{"no whole MiB", "1000k", 0},
		{"zero", "0", 0},
		{"negative", "-1", 0},
		{"nothing", "", 0},
		{"words", "much", 0},
		{"huge", "99999999999999999999g", 0},
		{"infinite", "infg", 0},
		{"not a number", "nang", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s Size
			if err := s.Set(tt.text); (err == nil) != (tt.want > 0) || int(s) != tt.want {
				t.Errorf("%q is %d (%v), want %d", tt.text, s, err, tt.want)
			}
		})
	}
}

func TestDuration(t *testing.T) {
	tests := []struct {
		text string
		want time.Duration // 0: refused
	}{
		{"90s", 90 * time.Second},
		{"5m", 5 * time.Minute},
		{"30", 30 * time.Second},
		{"0.5", 500 * time.Millisecond},
		{"1us", time.Microsecond},
		{"0", 0},
		{"-3s", 0},
		{"soon", 0},
		{"NaN", 0},
		{"1e300", 0},
		{"Inf", 0},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			var d Duration
			if err := d.Set(tt.text); (err == nil) != (tt.want > 0) || time.Duration(d) != tt.want {
				t.Errorf("%q is %s (%v), want %s", tt.text, time.Duration(d), err, tt.want)
			}
			if tt.want > 0 && d.Milliseconds() == 0 {
				t.Errorf("%q became no limit", tt.text)
			}
		})
	}
}

func lookup(name string) (string, bool) {
	v, ok := map[string]string{"HERE": "from here", "EMPTY": ""}[name]
	return v, ok
}

func TestParseEnv(t *testing.T) {
	tests := []struct {
		name, text string
		want       map[string]string
		err        string
	}{
		{"values as they stand", "A=1\nB= two words \nC=\"quoted\" # no comment\n", map[string]string{"A": "1", "B": " two words ", "C": `"quoted" # no comment`}, ""},
		{"comments and empty lines", "# comment\n\n  # another\n  A=1", map[string]string{"A": "1"}, ""},
		{"equals sign in the value", "A=b=c", map[string]string{"A": "b=c"}, ""},
		{"empty value", "A=", map[string]string{"A": ""}, ""},
		{"taken from here", "HERE\nEMPTY", map[string]string{"HERE": "from here", "EMPTY": ""}, ""},
		{"not set here", "A=1\nMISSING", nil, "line 2: MISSING is not set"},
		{"no name", "=x", nil, "line 1"},
		{"space in the name", "export A=1", nil, "line 1"},
		{"Windows", "\ufeffA=1\r\nB=2\r\n", map[string]string{"A": "1", "B": "2"}, ""},
		{"the last one wins", "A=1\nA=2", map[string]string{"A": "2"}, ""},
		{"long line", "A=" + strings.Repeat("x", 200_000), map[string]string{"A": strings.Repeat("x", 200_000)}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := map[string]string{}
			err := parseEnv(strings.NewReader(tt.text), lookup, got)
			switch {
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("error %v, want %q", err, tt.err)
			case tt.err == "" && (err != nil || !maps.Equal(got, tt.want)):
				t.Errorf("%v (%v), want %v", got, err, tt.want)
			}
		})
	}
}

func FuzzParseEnv(f *testing.F) {
	f.Add("A=1\n# c\nHERE\r\n")
	f.Add("=\n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		got := map[string]string{}
		if parseEnv(strings.NewReader(text), lookup, got) != nil {
			return
		}
		for name := range got {
			if name == "" || strings.ContainsAny(name, "= \t\n") {
				t.Errorf("the name %q came out of %q", name, text)
			}
		}
	})
}
