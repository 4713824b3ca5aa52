// SPDX-License-Identifier: Apache-2.0

package dev

import (
	"context"
	"fmt"
	"time"

	"github.com/keyhole-dev/keyhole/agent/privsep"
)

// A monitor that ends is started again after a time that doubles; one that ran for healthy begins with the first again.
const (
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 10 * time.Second
	healthy      = 10 * time.Second
)

// supervise keeps a monitor running until ctx is done, and returns when the last one is gone.
func (c *Config) supervise(ctx context.Context, options privsep.Options) {
	backoff := firstBackoff
	for {
		begin := time.Now()
		err := once(ctx, options)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begin) > healthy {
			backoff = firstBackoff
		}
		if err == nil {
			err = fmt.Errorf("it ended by itself")
		}
		fmt.Fprintf(c.Progress, "keyhole dev: the agent is gone, and with it every session: %v; starting it again in %v\n", err, backoff)
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// once runs one monitor to its end.
func once(ctx context.Context, options privsep.Options) error {
	m, err := privsep.StartMonitor(ctx, options)
	if err != nil {
		return err
	}
	return m.Wait()
}
