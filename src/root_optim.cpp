// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The library as root_optim::compiled: every definition that headers alone would have inline, and the
// templates of the named optimizers.
#ifndef ROOT_OPTIM_COMPILED
#error "link root_optim::compiled, which defines ROOT_OPTIM_COMPILED and compiles this file"
#endif

#include <root_optim/root_optim.hpp>

#include <root_optim/calibration/detail/calibrator_impl.hpp>
#include <root_optim/checkpoint/detail/checkpoint_impl.hpp>
#include <root_optim/checkpoint/detail/file_impl.hpp>
#include <root_optim/coefficients/design/detail/design_impl.hpp>
#include <root_optim/coefficients/design/detail/rational_design_impl.hpp>
#include <root_optim/coefficients/design/detail/shape_model_impl.hpp>
#include <root_optim/coefficients/detail/published_impl.hpp>
#include <root_optim/coefficients/detail/rational_impl.hpp>
#include <root_optim/coefficients/detail/rational_validation_impl.hpp>
#include <root_optim/coefficients/detail/shipped_impl.hpp>
#include <root_optim/coefficients/detail/shipped_rational_impl.hpp>
#include <root_optim/coefficients/detail/spectrum_impl.hpp>
#include <root_optim/coefficients/detail/table_impl.hpp>
#include <root_optim/coefficients/detail/validation_impl.hpp>
#include <root_optim/core/detail/archive_impl.hpp>
#include <root_optim/core/detail/fields_impl.hpp>
#include <root_optim/core/detail/tensor_checks_impl.hpp>
#include <root_optim/diagnostics/detail/orthogonality_impl.hpp>
#include <root_optim/diagnostics/detail/step_report_impl.hpp>
#include <root_optim/diagnostics/detail/tail_statistics_impl.hpp>
#include <root_optim/filters/detail/outlier_split_impl.hpp>
#include <root_optim/filters/detail/soft_threshold_impl.hpp>
#include <root_optim/kernels/detail/max_abs_impl.hpp>
#include <root_optim/kernels/detail/workspace_impl.hpp>
#include <root_optim/optimizer/detail/commit_impl.hpp>
#include <root_optim/optimizer/detail/fault_guard_impl.hpp>
#include <root_optim/optimizer/detail/new_parameters_impl.hpp>
#include <root_optim/optimizer/detail/next_state_impl.hpp>
#include <root_optim/optimizer/detail/restore_impl.hpp>
#include <root_optim/optimizer/detail/step_adamw_impl.hpp>
#include <root_optim/orthogonalizers/detail/ada_newton_impl.hpp>
#include <root_optim/orthogonalizers/detail/exact_polar_impl.hpp>
#include <root_optim/orthogonalizers/detail/iteration_plan_impl.hpp>
#include <root_optim/orthogonalizers/detail/newton_schulz_impl.hpp>
#include <root_optim/orthogonalizers/detail/rational_impl.hpp>
#include <root_optim/parameters/detail/layout_impl.hpp>
#include <root_optim/parameters/detail/name_table_impl.hpp>
#include <root_optim/parameters/detail/param_state_impl.hpp>
#include <root_optim/parameters/detail/parameter_checks_impl.hpp>
#include <root_optim/parameters/detail/proposal_impl.hpp>
#include <root_optim/parameters/detail/registration_impl.hpp>
#include <root_optim/parameters/detail/routing_impl.hpp>
#include <root_optim/parameters/detail/routing_table_impl.hpp>
#include <root_optim/parameters/detail/suitability_impl.hpp>
#include <root_optim/schedules/detail/lr_scheduler_impl.hpp>
#include <root_optim/stages/detail/adamw_impl.hpp>
#include <root_optim/stages/detail/fused_adamw_impl.hpp>
#include <root_optim/stages/detail/update_balance_impl.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INSTANCES(, SoftThreshold, AdaNewton);
ROOT_OPTIM_INSTANCES(, SoftThreshold, NewtonSchulz);
ROOT_OPTIM_INSTANCES(, NoFilter, NewtonSchulz);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
