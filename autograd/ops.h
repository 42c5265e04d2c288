// Every differentiable op.
#pragma once

#include <binade/autograd/autocast.h>
#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/attention.h>
#include <binade/autograd/ops/conv.h>
#include <binade/autograd/ops/conv_variants.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/linear.h>
#include <binade/autograd/ops/linear_relu.h>
#include <binade/autograd/ops/loss.h>
#include <binade/autograd/ops/matmul.h>
#include <binade/autograd/ops/mlp.h>
#include <binade/autograd/ops/multi_head_loss.h>
#include <binade/autograd/ops/norm.h>
#include <binade/autograd/ops/recurrent.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/autograd/tape.h>
