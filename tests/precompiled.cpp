// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Empty: the target of this file owns the precompiled header that all test programs share.
