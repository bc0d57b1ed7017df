package control

import (
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/api"
)

func TestConn(t *testing.T) {
	a, b := net.Pipe()
	left, right := NewConn(a), NewConn(b)
	want := Request{Seq: 3, Policy: &api.NetworkPolicy{Mode: api.NetAllow}, Start: &Start{UID: 7}}
	go func() {
		_ = left.Write(want)
		_, _ = io.WriteString(a, "no json\n")
		_, _ = io.WriteString(a, strings.Repeat("x", maxLine+1))
	}()
	var got Request
	if err := right.Read(&got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := right.Read(&got); err == nil {
		t.Error("what is no JSON is read")
	}
	if err := right.Read(&got); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a line without end: %v", err)
	}
	_ = left.Close()
	_ = right.Close()
}

func TestAddresses(t *testing.T) {
	if !Guest().Contains(Gateway()) || Guest().Addr() == Gateway() {
		t.Errorf("guest %s, gateway %s", Guest(), Gateway())
	}
}
