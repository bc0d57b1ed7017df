package commands

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
)

const lastSignal = 64 // of Linux

// signalName is a signal by its name or its number.
type signalName string

// UnmarshalJSON implements json.Unmarshaler.
func (s *signalName) UnmarshalJSON(b []byte) error {
	var n json.Number
	if len(b) > 0 && b[0] != '"' && json.Unmarshal(b, &n) == nil {
		*s = signalName(n)
		return nil
	}
	return json.Unmarshal(b, (*string)(s))
}

// Schema implements huma.SchemaProvider.
func (signalName) Schema(huma.Registry) *huma.Schema {
	low, high := 1.0, float64(lastSignal)
	return &huma.Schema{
		Description: "a signal by its name or its number",
		Examples:    []any{"SIGTERM"},
		OneOf:       []*huma.Schema{{Type: huma.TypeString}, {Type: huma.TypeInteger, Minimum: &low, Maximum: &high}},
	}
}

// signalNumber is the number of a signal that is named "SIGTERM", "TERM" or "15".
func signalNumber(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= lastSignal {
		return n, nil
	}
	upper := strings.ToUpper(name)
	if !strings.HasPrefix(upper, "SIG") {
		upper = "SIG" + upper
	}
	if n := unix.SignalNum(upper); n > 0 {
		return int(n), nil
	}
	return 0, errdefs.Invalid.Errorf("signal: there is no %q", name).WithRemedy("a name such as SIGTERM, or a number from 1 to %d", lastSignal)
}
