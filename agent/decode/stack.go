// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"encoding/binary"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// stack is the attach point and the callers, each as where it is in a file. Where that file is in the process stays here.
func (d *Decoder) stack(site *target.Site, addresses []byte) []event.Frame {
	frames := make([]event.Frame, 1, 1+len(addresses)/plan.AddressBytes)
	frames[0] = event.Frame{Offset: site.FileOffset}
	for ; len(addresses) >= plan.AddressBytes; addresses = addresses[plan.AddressBytes:] {
		frames = append(frames, d.caller(binary.LittleEndian.Uint64(addresses)))
	}
	return frames
}

// caller finds a return address. It is the byte before it that lies in the caller: the call may be the last instruction.
func (d *Decoder) caller(address uint64) event.Frame {
	for i := range d.plan.Stack.Modules {
		m := &d.plan.Stack.Modules[i]
		if address-1 < m.Start || address-1 >= m.End {
			continue
		}
		f := event.Frame{Offset: address - m.Start + m.Offset, Return: true}
		if !m.Own {
			f.Module = m.Name
		}
		return f
	}
	return event.Frame{Module: event.UnknownModule, Return: true}
}
