// SPDX-License-Identifier: Apache-2.0

// Package authz decides which kind of identity may call which method. A method without a row is refused.
package authz

import (
	"slices"

	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/keyhole-dev/keyhole/internal/identity"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

var (
	users    = []identity.Kind{identity.User}
	nodes    = []identity.Kind{identity.Node}
	everyone = []identity.Kind{identity.User, identity.Node, identity.ControlPlane}
)

// methods is the table: full method name to who may call it.
var methods = map[string][]identity.Kind{
	keyholev1.ProbeService_CreateSession_FullMethodName: users,
	keyholev1.ProbeService_WatchSession_FullMethodName:  users,
	keyholev1.ProbeService_GetSession_FullMethodName:    users,
	keyholev1.ProbeService_ListSessions_FullMethodName:  users,
	keyholev1.ProbeService_StopSession_FullMethodName:   users,
	keyholev1.ProbeService_Explain_FullMethodName:       users,
	keyholev1.ProbeService_ListFunctions_FullMethodName: users,
	keyholev1.ProbeService_ListNodes_FullMethodName:     users,

	keyholev1.AuditService_ListRecords_FullMethodName:   users,
	keyholev1.AuditService_ProveRecord_FullMethodName:   users,
	keyholev1.AuditService_GetCheckpoint_FullMethodName: users,

	keyholev1.AgentService_Connect_FullMethodName: nodes,

	grpc_health_v1.Health_Check_FullMethodName: everyone,
	grpc_health_v1.Health_List_FullMethodName:  everyone,
	grpc_health_v1.Health_Watch_FullMethodName: everyone,

	reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName:      users,
	reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: users,
}

// Allow says whether a caller may call a method. The error is a *problem.Error of code PERMISSION_DENIED.
func Allow(caller identity.Identity, method string) error {
	if !slices.Contains(methods[method], caller.Kind) {
		return problem.New(problem.PermissionDenied, "%s may not call %s", caller, method)
	}
	return nil
}
